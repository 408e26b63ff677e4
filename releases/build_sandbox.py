"""One build's room on this host: its directories, its user, its limits, and running commands in it.

Owns everything that a build may touch, and that nothing of it stays. Knows neither builders nor the control plane.
Commands see /app (the tree), /tmp and /cache, the system read-only, no loopback and no secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from releases import worker_given
from releases.build_errors import BuildFailed
from releases.builders.base import APP, CACHE, PLATFORM, Command, HostTools
from releases.contract import STDERR, STDOUT, BuildLimits
from releases.disk_use import bytes_below, remove_tree
from releases.lease import Stop
from releases.registry_settings import RegistrySettings
from sandbox import bubblewrap, cgroups, identity
from sandbox.cgroups import Group, Unavailable
from sandbox.probe import Facts, probe

MIB = 1024 * 1024
_TICK_S = 0.1
_LOOK_EVERY_S = 2.0
_CACHE_MB = 2048
_PROCESSES = 1024
_OPEN_FILES = 16_384
_AFTER_END_S = 2.0  # how long pipes may stay open when the program is gone

Sink = Callable[[int, str], None]


@cache
def host_facts(bwrap_path: str) -> Facts:
    """As the process that started the worker says, else probed once; "" means wherever bubblewrap is found."""
    told = worker_given.given()
    return told.facts if told else probe(bwrap_path or None)


@dataclass(frozen=True, slots=True)
class Room:
    """Where one attempt works. `root` is made for it and removed with it; `cache` belongs to its app and stays.

    `group` is the name of its cgroup below `groups`.
    """

    root: Path
    cache: Path
    uid: int
    group: str
    groups: str = cgroups.PARENT
    _lock: list[int] = field(default_factory=list)

    @property
    def artifact(self) -> Path:
        return self.root / "artifact"

    @property
    def unpacked(self) -> Path:
        return self.root / "unpacked"

    @property
    def package(self) -> Path:
        return self.root / "package.tar"

    def make(self, owned: bool) -> None:
        """`owned`: programs get a user of their own, which must own what it may write."""
        remove_tree(self.root)
        self.root.mkdir(parents=True, mode=0o711)
        self._lock.append(_lock(self.root))
        if self.cache.exists() and bytes_below(self.cache, _CACHE_MB * MIB) >= _CACHE_MB * MIB:
            remove_tree(self.cache)
        for path in (self.root / "tmp", self.root / "tmp" / "home", self.cache, self.cache / "pip", self.cache / "npm"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if owned:
                os.chown(path, self.uid, self.uid)

    def remove(self) -> None:
        remove_tree(self.root)
        while self._lock:
            os.close(self._lock.pop())


@dataclass(slots=True)
class BuildSandbox:
    """Runs commands in a room, one at a time. `tree` is what appears as /app."""

    room: Room
    tree: Path
    facts: Facts
    tools: HostTools
    registries: RegistrySettings
    limits: BuildLimits
    stop: Stop
    sink: Sink
    deadline: float
    extra_env: dict[str, str] = field(default_factory=dict)
    _group: Group | None = field(default=None, init=False)
    _last_line: str = field(default="", init=False)
    _binds: list[bubblewrap.Bind] = field(default_factory=list, init=False)

    def __enter__(self) -> BuildSandbox:
        with contextlib.suppress(Unavailable):
            layout = cgroups.layout_below(self.room.groups)
            memory = self.limits.memory_mb * MIB
            self._group = Group.create(self.room.group, memory, cpu_weight=0.5, pids=_PROCESSES, layout=layout)
        settings = self.registries.write(self.room.root / "settings")
        self._binds = [
            *bubblewrap.runtime_binds(),
            bubblewrap.Bind(str(self.tree), APP, writable=True),
            bubblewrap.Bind(str(self.room.root / "tmp"), "/tmp", writable=True),  # noqa: S108 (inside the sandbox)
            bubblewrap.Bind(str(self.room.cache), CACHE, writable=True),
            *settings,
        ]
        if self.tools.pip_directory:
            self._binds.append(bubblewrap.Bind(self.tools.pip_directory, f"{PLATFORM}/pip"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._group:
            self._group.kill()
            self._group.remove()

    def run(self, command: Command) -> None:
        """Run to the end. Raises BuildFailed with the command's code or that of a limit, or BuildStopped."""
        self.stop.check()
        oom_before = self._group.oom_kills() if self._group else 0
        self._last_line = ""
        process = self._start(command)
        try:
            self._follow(process)
        finally:
            self._kill(process)
        self.stop.check()
        if process.returncode == 0:
            return
        if self._group and self._group.oom_kills() > oom_before:
            raise BuildFailed("out_of_memory", f"`{command.title}` needed more than {self.limits.memory_mb} MB.")
        raise BuildFailed(command.failure, _ending(command, process.returncode, self._last_line))

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        spec = bubblewrap.Spec(
            argv=command.argv,
            env={**self._environment(), **command.env},
            cwd=APP,
            binds=self._binds,
            uid=self.room.uid,
            gid=self.room.uid,
            die_with_parent=True,
            hostname="build",
            rlimits=bubblewrap.Rlimits(
                cpu_s=max(1, int(self.limits.cpu_s)),
                file_bytes=self.limits.file_mb * MIB,
                open_files=_OPEN_FILES,
                processes=_PROCESSES if self._group is None and self.facts.user_switch else None,
            ),
        )
        argv = bubblewrap.command(spec, self.facts)
        return subprocess.Popen(
            self._group.enter(argv) if self._group else argv,
            env=bubblewrap.environment(spec, self.facts),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,  # a signal to the worker's group is the worker's business
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": self.tools.path,
            "HOME": "/tmp/home",  # noqa: S108 (inside the sandbox)
            "TMPDIR": "/tmp",  # noqa: S108 (inside the sandbox)
            "LANG": "C.UTF-8",
            "PIP_CACHE_DIR": f"{CACHE}/pip",
            "NPM_CONFIG_CACHE": f"{CACHE}/npm",
            **self.registries.env,
            **self.extra_env,
        }

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Pass on what it prints until it ends; look at the limits meanwhile."""
        readers = {process.stdout: _Lines(STDOUT), process.stderr: _Lines(STDERR)}
        look_at = time.monotonic() + _LOOK_EVERY_S
        gone_at: float | None = None
        with selectors.DefaultSelector() as selector:
            for pipe in readers:
                selector.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
            while selector.get_map() or process.poll() is None:
                if not selector.get_map():
                    time.sleep(_TICK_S)  # it closed its output and goes on
                for key, _ in selector.select(_TICK_S):
                    data = os.read(key.fd, 64 * 1024)
                    if not data:
                        selector.unregister(key.fileobj)
                    self._pass_on(readers[key.fileobj], data)  # type: ignore[index]
                self.stop.check()
                now = time.monotonic()
                if gone_at is None and process.poll() is not None:
                    gone_at = now
                if gone_at is not None and now > gone_at + _AFTER_END_S:
                    break
                if now >= look_at or now > self.deadline:
                    self._check_limits(now)
                    look_at = time.monotonic() + _LOOK_EVERY_S

    def _pass_on(self, lines: _Lines, data: bytes) -> None:
        for line in lines.take(data):
            self._last_line = line.strip() or self._last_line
            self.sink(lines.stream, line)

    def _check_limits(self, now: float) -> None:
        limits = self.limits
        if now > self.deadline:
            raise BuildFailed("build_timeout", f"The build took longer than {limits.wall_s:g} s.")
        used = self._group.cpu_usage_us() if self._group else None
        if used is not None and used > limits.cpu_s * 1e6:
            raise BuildFailed("cpu_limit", f"The build used more than {limits.cpu_s:g} s of processor time.")
        most = limits.disk_mb * MIB
        if bytes_below(self.tree, most) + bytes_below(self.room.root / "tmp", most) >= most:
            raise BuildFailed("disk_limit", f"The build wrote more than {limits.disk_mb} MB.")

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Whatever is left of it: the sandbox with all that is in its process namespace, then the whole group."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if self._group:
            self._group.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


class _Lines:
    """Bytes of one stream into lines; a carriage return ends one too (progress bars)."""

    MOST = 16 * 1024

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self._rest = b""

    def take(self, data: bytes) -> list[str]:
        """The lines that are whole now; no data is the end of the stream."""
        text = self._rest + data
        held = b"\r" if data and text.endswith(b"\r") else b""  # its line feed may come with the next bytes
        text = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = text.split(b"\n")
        if not data or len(rest) > self.MOST:
            whole, rest = [*whole, rest] if rest else whole, b""
        self._rest = rest + held
        return [line.decode("utf-8", "replace") for line in whole]


def remove_unless_busy(root: Path) -> bool:
    """Remove the room of an attempt whose process is gone; False when that process lives."""
    try:
        descriptor = _lock(root)
    except OSError:
        return False
    remove_tree(root)
    os.close(descriptor)
    return True


def _lock(root: Path) -> int:
    """Held until closed or until this process ends; programs that it starts do not inherit it."""
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def uid_of(app_id: int, facts: Facts, base: int) -> int:
    """Builds of one app share a user, and with it the download cache; no two apps' builds do."""
    return identity.uid_for("build", app_id, base) if facts.user_switch else os.getuid()


def _ending(command: Command, code: int, last_line: str) -> str:
    number = code - 128 if code > 128 else -code
    if code > 128 or code < 0:
        try:
            how = f"was killed by {signal.Signals(number).name}"
        except ValueError:
            how = f"ended with exit code {code}"
    else:
        how = f"ended with exit code {code}"
    said = f" Its last line: {last_line[:500]}" if last_line else ""
    return f"`{command.title}` {how}.{said}"
