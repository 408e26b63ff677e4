"""A release that is an image: the worker's side. Starts the job, passes on what it says, ends it when told to.

Owns the job's process and the translation of its end into the build's. The package is the engine's own archive of one
image without a name, so that every node loads what was built, and no registry is needed between them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from releases.build_errors import BuildFailed
from releases.build_sandbox import Room
from releases.contract import STDOUT, BuildLimits, Package, RegistryLogin
from releases.image_job import Job
from releases.lease import Stop

_TICK_S = 0.2
_BLOCK = 1024 * 1024
_HUB = "https://index.docker.io/v1/"  # the name under which its own credentials are kept


@dataclass(frozen=True, slots=True)
class Made:
    """`reference` is what the release shows: the pinned reference, or the image's id."""

    package: Package
    reference: str


@dataclass(slots=True)
class ImageBuild:
    """One attempt's way to an engine. `engine` is "" where there is none."""

    engine: str
    room: Room
    limits: BuildLimits
    logins: tuple[RegistryLogin, ...]
    stop: Stop
    sink: Callable[[int, str], None]
    deadline: float

    def make(self, kind: str, source: str, tag: str) -> Made:
        """Raises BuildFailed, BuildStopped."""
        if not self.engine:
            raise BuildFailed(
                "no_engine", "The build worker has no container engine (agent.docker); images cannot be made here."
            )
        job = Job(self.engine, kind, source, str(self.room.package), tag, self.limits.memory_mb, self.limits.disk_mb)
        process = self._start(job)
        try:
            ended = self._follow(process)
        finally:
            _end(process)
        self.stop.check()
        if ended is None:
            raise BuildFailed("build_failed", "The engine's job ended without a word; the worker's log says more.")
        if "failed" in ended:
            raise BuildFailed(str(ended["failed"]["code"]), str(ended["failed"]["detail"]))
        return Made(self._package(), str(ended["done"]["reference"]))

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        folder = self.room.root / "registries"
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({"auths": {_key(login.registry): {"auth": _auth(login)} for login in self.logins}}, file)
        process = subprocess.Popen(
            [sys.executable, "-m", "releases.image_job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "DOCKER_CONFIG": str(folder), "TMPDIR": str(self.room.root)},
            start_new_session=True,
        )
        if process.stdin is not None:
            process.stdin.write(json.dumps(asdict(job)).encode())
            process.stdin.close()
        return process

    def _follow(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """Pass on its lines until it ends; answers its last word."""
        ended: dict[str, Any] | None = None
        if process.stdout is None:
            raise AssertionError("a job is started with a pipe")
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                ready = selector.select(_TICK_S)
                self.stop.check()
                if time.monotonic() > self.deadline:
                    raise BuildFailed("build_timeout", f"The build took longer than {self.limits.wall_s:g} s.")
                if not ready:
                    continue
                data = os.read(process.stdout.fileno(), _BLOCK)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if "log" in event:
                        self.sink(STDOUT, str(event["log"]))
                    else:
                        ended = event
                if not data:
                    return ended

    def _package(self) -> Package:
        digest, size = hashlib.sha256(), 0
        with self.room.package.open("rb") as file:
            while block := file.read(_BLOCK):
                self.stop.check()
                digest.update(block)
                size += len(block)
        return Package(digest.hexdigest(), size)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def _key(registry: str) -> str:
    return _HUB if registry == "docker.io" else registry


def _auth(login: RegistryLogin) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode("ascii")
