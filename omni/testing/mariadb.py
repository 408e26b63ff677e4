"""A private MariaDB server for tests and benches: in a folder of its own, on a socket, gone when it is stopped.

Owns the server's start, options and end. Not durable on purpose where a test cannot tell; `durable=True` for benches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

_INSTALL_TIMEOUT_S = 120
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_QUICK = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--sync-binlog=0", "--skip-log-bin")


class NoServer(Exception):
    """MariaDB cannot be had here; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Binaries:
    server: str
    install: str
    client: str


def find() -> Binaries:
    """The programs, on PATH or where distributions put them. Raises NoServer."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"])
    found = [
        next((hit for name in names if (hit := shutil.which(name, path=path))), "")
        for names in (("mariadbd", "mysqld"), ("mariadb-install-db", "mysql_install_db"), ("mariadb", "mysql"))
    ]
    if not all(found):
        raise NoServer(
            "MariaDB is needed and was not found. As root on Debian: apt-get install mariadb-server; "
            "or give an empty server by OMNI_TEST_DATABASE_URL=mysql://user:password@host:3306/name"
        )
    return Binaries(*found)


def _tied_to_this_process() -> list[str]:
    """A prefix that ends the server with us, also when we are killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


class PrivateMariaDB:
    """`with PrivateMariaDB() as server: server.url("omni")`."""

    def __init__(self, *, durable: bool = False, options: tuple[str, ...] = ()) -> None:
        self.binaries = find()
        self.folder = Path(tempfile.mkdtemp(prefix="omni-mariadb-"))
        self.socket = str(self.folder / "s.sock")
        self.options = (*(() if durable else _QUICK), *options)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateMariaDB:
        try:
            self._install()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def url(self, name: str) -> str:
        """The URL of the database `name`, as root over the socket."""
        return f"mysql://root@localhost/{name}?unix_socket={quote(self.socket)}"

    def create(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        return self.url(name)

    def execute(self, statement: str) -> str:
        """Run SQL as root; what the client prints."""
        command = [self.binaries.client, "--no-defaults", f"--socket={self.socket}", "-uroot", "-N", "-e", statement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def start(self) -> None:
        """Start the server on what the folder holds; returns when it answers."""
        command = [
            *_tied_to_this_process(),
            self.binaries.server,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--tmpdir={self.folder}",
            "--skip-networking",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_unicode_ci",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=128M",
            "--max-connections=500",
            *(["--user=root"] if os.geteuid() == 0 else []),
            *self.options,
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def stop(self, *, kill: bool = False) -> None:
        """End the server and remove its folder; `kill`: at once, and keep the folder for another start."""
        if self._process:
            if kill:
                self._process.kill()
            else:
                self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if not kill:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _install(self) -> None:
        command = [
            self.binaries.install,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            raise NoServer(f"MariaDB cannot make its data directory: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process and self._process.poll() is not None:
                break
            try:
                self.execute("SELECT 1")
            except subprocess.CalledProcessError:
                time.sleep(0.05)
                continue
            return
        log = (self.folder / "log").read_text(errors="replace")[-1500:]
        raise NoServer(f"MariaDB did not start:\n{log}")
