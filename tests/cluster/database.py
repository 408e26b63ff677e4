"""The database of a lab: one MariaDB on a host of its own, reached over the network, looked into over its socket.

Owns its start in the namespace, its account, and what can be done to it (kill, freeze). Durable where the proof needs
it: an acknowledged write must survive a kill of the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import replace

from omni.testing.hosts import Host
from omni.testing.mariadb import PrivateMariaDB

USER, PASSWORD, NAME = "omni", "a-lab-of-its-own", "omni"
PORT = 3306


class LabDatabase(PrivateMariaDB):
    """`url_of_lab` is what the nodes get. The files lie in a folder of its own and outlive a kill."""

    def __init__(self, host: Host) -> None:
        options = ("--skip-networking=0", f"--bind-address={host.address}", f"--port={PORT}", "--skip-name-resolve")
        super().__init__(durable=True, options=(*options, "--innodb-flush-log-at-trx-commit=1"))
        self.host = host
        self._in_namespace()

    def _in_namespace(self) -> None:
        """The server's program becomes a script that enters the namespace first: the rest stays as it is."""
        script = self.folder / "mariadbd"
        words = " ".join(self.host.command([self.binaries.server]))
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)
        self.binaries = replace(self.binaries, server=str(script))

    @property
    def addresses(self) -> list[str]:
        return [self.host.address]

    @property
    def url_of_lab(self) -> str:
        return f"mysql://{USER}:{PASSWORD}@{self.host.address}:{PORT}/{NAME}"

    def prepare(self) -> None:
        """An empty database, and the account of the platform."""
        self.create(NAME)
        self.execute(f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
        self.execute(f"GRANT ALL ON {NAME}.* TO {USER}@'%'")

    def rows(self, statement: str) -> list[list[str]]:
        """The rows of a query as text."""
        command = [self.binaries.client, "--no-defaults", f"--socket={self.socket}", "-uroot", "-N", "-B", "--raw"]
        done = subprocess.run([*command, NAME, "-e", statement], capture_output=True, text=True, timeout=60, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def pids(self) -> list[int]:
        return [self.pid] if self.pid else []

    @property
    def running(self) -> bool:
        return self._process is not None

    def heal(self) -> None:
        """Running, and not frozen."""
        if self.running:
            self.thaw()
        else:
            self.start()

    def remove(self) -> None:
        """End it, frozen or not."""
        if self.pid:
            self.thaw()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
