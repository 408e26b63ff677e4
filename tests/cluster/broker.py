"""The broker of a lab: one Valkey on a host of its own, with a password, reached over the network."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from pathlib import Path

from omni.kernel import config as configuration
from omni.launch import plan
from omni.testing.hosts import Host

PORT = 6379


class LabBroker:
    """Owns its process and its files in `folder`."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{self.host.address}:{PORT}/0"

    @property
    def pids(self) -> list[int]:
        return [self.process.pid] if self.process else []

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        binary = plan.valkey_binary(configuration.Config.model_construct())
        options = {"port": PORT, "bind": self.host.address, "requirepass": self.password, "dir": self.folder,
                   "appendonly": "yes", "save": ""}  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            self.process = self.host.popen(
                [binary, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def heal(self) -> None:
        """Running, and not frozen."""
        if self.process is None:
            self.start()
        else:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)
