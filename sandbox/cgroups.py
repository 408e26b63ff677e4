"""Limits on memory, CPU and process count of a whole process tree, by cgroup v1 or v2.

Owns the directories `omni/<name>` in the cgroup file systems and nothing else. Raises Unavailable where the host
does not permit them; never pretends. A group is found again by its name after a restart of the caller. `delegate`
gives a user a directory below `omni` in which it makes groups of its own (`layout(parent)`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Version = Literal["cgroup-v1", "cgroup-v2", "none"]

MOUNT = Path("/sys/fs/cgroup")
PARENT = "omni"
LEAF = f"{PARENT}-platform"  # v2: where our own processes are, because an inner node may hold none
_GIVEN_V2 = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,100}\Z")
_CPU_PERIOD_US = 100_000
_UNLIMITED_V1 = 1 << 60  # v1 writes "no limit" as a huge page-rounded number


class Unavailable(Exception):
    """This host, or this user on it, cannot have cgroups; the text says why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a group may use; None is no bound. `cpu_quota` in cores; `cpu_weight` 1.0 is a normal share."""

    memory_bytes: int | None
    cpu_quota: float | None
    cpu_weight: float
    pids: int | None


class Layout(Protocol):
    """One way in which cgroups are laid out on a host. Every directory of a group lists the same processes."""

    def directories(self, name: str) -> list[Path]: ...
    def make(self, name: str, bounds: Bounds) -> None: ...
    def memory_current(self, name: str) -> int | None: ...
    def memory_limit(self, name: str) -> int | None: ...
    def cpu_usage_us(self, name: str) -> int | None: ...
    def oom_kills(self, name: str) -> int: ...
    def freeze(self, name: str, frozen: bool) -> None: ...
    def kill_at_once(self, name: str) -> bool: ...
    def give_to(self, uid: int) -> None: ...


class V1:
    """Separate trees for memory, cpu, cpuacct, pids and freezer."""

    CONTROLLERS = ("memory", "cpu", "cpuacct", "pids", "freezer")
    NEEDED = ("memory", "cpu", "pids")

    def __init__(self, mount: Path, parent: str = PARENT) -> None:
        self.mount = mount
        self.parent = parent
        self.present = [name for name in self.CONTROLLERS if (mount / name).is_dir()]

    def directories(self, name: str) -> list[Path]:
        seen: dict[Path, Path] = {}
        for controller in self.present:
            # cpu and cpuacct are often one tree under two names.
            real = (self.mount / controller).resolve()
            seen.setdefault(real, self.mount / controller / self.parent / name)
        return list(seen.values())

    def make(self, name: str, bounds: Bounds) -> None:
        for directory in self.directories(name):
            directory.mkdir(parents=True, exist_ok=True)
        memory = -1 if bounds.memory_bytes is None else bounds.memory_bytes
        self._write_memory(name, memory)
        quota = -1 if bounds.cpu_quota is None else max(1000, int(bounds.cpu_quota * _CPU_PERIOD_US))
        _write(self._file("cpu", name, "cpu.cfs_period_us"), _CPU_PERIOD_US)
        _write(self._file("cpu", name, "cpu.cfs_quota_us"), quota)
        _write(self._file("cpu", name, "cpu.shares"), max(2, int(1024 * bounds.cpu_weight)))
        _write(self._file("pids", name, "pids.max"), "max" if bounds.pids is None else bounds.pids)

    def _write_memory(self, name: str, memory: int) -> None:
        plain = self._file("memory", name, "memory.limit_in_bytes")
        with_swap = self._file("memory", name, "memory.memsw.limit_in_bytes")
        # memsw must never be below the plain limit: which one goes first depends on whether the limit grows.
        order = [plain, with_swap] if with_swap.exists() else [plain]
        try:
            for file in order:
                _write(file, memory)
        except OSError:
            for file in reversed(order):
                _write(file, memory)

    def memory_current(self, name: str) -> int | None:
        usage = _number(self._file("memory", name, "memory.usage_in_bytes"))
        return _without_cache(usage, _table(self._file("memory", name, "memory.stat")).get("total_inactive_file", 0))

    def memory_limit(self, name: str) -> int | None:
        limit = _number(self._file("memory", name, "memory.limit_in_bytes"))
        return None if limit is None or limit >= _UNLIMITED_V1 else limit

    def cpu_usage_us(self, name: str) -> int | None:
        nanoseconds = _number(self._file("cpuacct", name, "cpuacct.usage"))
        return None if nanoseconds is None else nanoseconds // 1000

    def oom_kills(self, name: str) -> int:
        return _table(self._file("memory", name, "memory.oom_control")).get("oom_kill", 0)

    def freeze(self, name: str, frozen: bool) -> None:
        file = self._file("freezer", name, "freezer.state")
        if file.exists():
            _write(file, "FROZEN" if frozen else "THAWED")

    def kill_at_once(self, name: str) -> bool:
        return False

    def _file(self, controller: str, name: str, file: str) -> Path:
        return self.mount / controller / self.parent / name / file

    def give_to(self, uid: int) -> None:
        for directory in {path.parent for path in self.directories("x")}:
            directory.mkdir(parents=True, exist_ok=True)
            os.chown(directory, uid, uid)


class V2:
    """One tree; `base` is the cgroup in which ours is made (the root, or the one that was delegated to us)."""

    def __init__(self, base: Path, parent: str = PARENT) -> None:
        self.base = base
        self.parent = parent

    def directories(self, name: str) -> list[Path]:
        return [self.base / self.parent / name]

    def make(self, name: str, bounds: Bounds) -> None:
        self._make_parents()
        (self.base / self.parent / name).mkdir(exist_ok=True)
        _write(self._file(name, "memory.max"), "max" if bounds.memory_bytes is None else bounds.memory_bytes)
        with contextlib.suppress(OSError):  # absent without swap accounting
            _write(self._file(name, "memory.swap.max"), 0 if bounds.memory_bytes is not None else "max")
        quota = "max" if bounds.cpu_quota is None else str(max(1000, int(bounds.cpu_quota * _CPU_PERIOD_US)))
        _write(self._file(name, "cpu.max"), f"{quota} {_CPU_PERIOD_US}")
        _write(self._file(name, "cpu.weight"), max(1, min(10_000, int(100 * bounds.cpu_weight))))
        _write(self._file(name, "pids.max"), "max" if bounds.pids is None else bounds.pids)

    def _make_parents(self) -> None:
        above = self.base
        for part in ("", *Path(self.parent).parts):
            above = above / part
            above.mkdir(exist_ok=True)
            self._delegate(above)

    def give_to(self, uid: int) -> None:
        """A user may move processes only within what is its own: the caller goes there first."""
        self._make_parents()
        top = self.base / self.parent
        leaf = top / LEAF
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", os.getpid())
        for path in (top, leaf, *(top / name for name in _GIVEN_V2), leaf / "cgroup.procs"):
            os.chown(path, uid, uid)

    def _delegate(self, parent: Path) -> None:
        file = parent / "cgroup.subtree_control"
        enabled = set(file.read_text(encoding="ascii").split())
        missing = [f"+{name}" for name in ("memory", "cpu", "pids") if name not in enabled]
        if not missing:
            return
        try:
            _write(file, " ".join(missing))
        except OSError:
            # An inner node may hold no process of its own: move ours into a leaf, then ask again.
            leaf = parent / LEAF
            leaf.mkdir(exist_ok=True)
            for pid in (parent / "cgroup.procs").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    _write(leaf / "cgroup.procs", pid)
            _write(file, " ".join(missing))

    def memory_current(self, name: str) -> int | None:
        usage = _number(self._file(name, "memory.current"))
        return _without_cache(usage, _table(self._file(name, "memory.stat")).get("inactive_file", 0))

    def memory_limit(self, name: str) -> int | None:
        return _number(self._file(name, "memory.max"))

    def cpu_usage_us(self, name: str) -> int | None:
        return _table(self._file(name, "cpu.stat")).get("usage_usec")

    def oom_kills(self, name: str) -> int:
        return _table(self._file(name, "memory.events")).get("oom_kill", 0)

    def freeze(self, name: str, frozen: bool) -> None:
        file = self._file(name, "cgroup.freeze")
        if file.exists():
            _write(file, int(frozen))

    def kill_at_once(self, name: str) -> bool:
        file = self._file(name, "cgroup.kill")
        if not file.exists():
            return False
        _write(file, 1)
        return True

    def _file(self, name: str, file: str) -> Path:
        return self.base / self.parent / name / file


@dataclass(frozen=True, slots=True)
class Group:
    """One limited process tree."""

    name: str
    layout: Layout

    @classmethod
    def create(
        cls,
        name: str,
        memory_bytes: int | None,
        cpu_quota: float | None = None,
        cpu_weight: float = 1.0,
        pids: int | None = None,
        layout: Layout | None = None,
    ) -> Group:
        """Idempotent: an existing group of that name gets these limits."""
        group = cls(_checked(name), layout or layout_below())
        try:
            group.layout.make(name, Bounds(memory_bytes, cpu_quota, cpu_weight, pids))
        except OSError as error:
            group.remove()
            raise Unavailable(f"the host refuses a cgroup: {error.strerror} ({error.filename})") from error
        return group

    @classmethod
    def open(cls, name: str, layout: Layout | None = None) -> Group | None:
        """The group of that name, or None when the host has none."""
        try:
            group = cls(_checked(name), layout or layout_below())
        except Unavailable:
            return None
        return group if any(directory.is_dir() for directory in group._directories()) else None

    def enter(self, argv: list[str]) -> list[str]:
        """argv that joins the group and then becomes `argv`: there is no moment outside the limits."""
        joins = "; ".join(
            f"echo $$ > {shlex.quote(str(directory / 'cgroup.procs'))} || exit 125" for directory in self._directories()
        )
        return ["/bin/sh", "-c", f'{joins}; exec "$@"', "sh", *argv]

    def add(self, pid: int) -> None:
        """Move a running process in; what it started before stays where it is."""
        for directory in self._directories():
            _write(directory / "cgroup.procs", pid)

    def pids(self) -> list[int]:
        try:
            text = (self._directories()[0] / "cgroup.procs").read_text(encoding="ascii")
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def memory_current(self) -> int | None:
        """Bytes in use, without file cache that the kernel could drop; None when it cannot be read."""
        return self.layout.memory_current(self.name)

    def memory_limit(self) -> int | None:
        return self.layout.memory_limit(self.name)

    def cpu_usage_us(self) -> int | None:
        """CPU time used since the group was made, microseconds; None when it cannot be read."""
        return self.layout.cpu_usage_us(self.name)

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed for memory."""
        return self.layout.oom_kills(self.name)

    def kill(self, deadline_s: float = 5.0) -> bool:
        """SIGKILL everything inside; True when it is empty. Frozen first, so that a fork bomb cannot outrun it."""
        end = time.monotonic() + deadline_s
        while self.pids():
            with contextlib.suppress(OSError):
                if not self.layout.kill_at_once(self.name):
                    self._kill_each()
            if time.monotonic() >= end:
                return not self.pids()
            time.sleep(0.01)
        return True

    def remove(self) -> bool:
        """Delete the empty group; False while something lives in it."""
        gone = True
        for directory in self._directories():
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _kill_each(self) -> None:
        self.layout.freeze(self.name, True)
        try:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            self.layout.freeze(self.name, False)

    def _directories(self) -> list[Path]:
        return self.layout.directories(self.name)


def names(prefix: str = "", layout: Layout | None = None) -> list[str]:
    """Names of the groups that exist here: what a sweep after a crash starts from."""
    try:
        directory = (layout or layout_below()).directories("x")[0].parent
        return sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and entry.name.startswith(prefix))
    except (Unavailable, OSError):
        return []


def version(parent: str = PARENT) -> Version:
    """Which cgroups can really be had here, by making one and removing it. Raises Unavailable with the reason."""
    name, layout = f"trial-{os.getpid()}-{time.monotonic_ns()}", layout_below(parent)
    group = Group.create(name, 64 * 1024 * 1024, 0.5, 1.0, 16, layout)
    group.remove()
    return "cgroup-v1" if isinstance(group.layout, V1) else "cgroup-v2"


def delegate(parent: str, uid: int) -> None:
    """Make the directory `parent` and give it to a user. Raises Unavailable."""
    try:
        layout_below(parent).give_to(uid)
    except OSError as error:
        raise Unavailable(f"the host refuses a cgroup: {error.strerror} ({error.filename})") from error


def remove_parent(parent: str) -> None:
    """Remove the directory that was made by `delegate`, if nothing is in it."""
    with contextlib.suppress(Unavailable):
        for directory in layout_below(parent).directories(LEAF):
            for path in (directory, directory.parent):
                with contextlib.suppress(OSError):
                    path.rmdir()


def layout_below(parent: str = PARENT, mount: Path = MOUNT) -> Layout:
    """How groups are made here below `parent`. Raises Unavailable."""
    v1 = V1(mount, parent)
    if all(name in v1.present for name in V1.NEEDED):
        return v1
    for base in _v2_bases(mount, parent):
        try:
            offered = set((base / "cgroup.controllers").read_text(encoding="ascii").split())
        except OSError:
            continue
        writable = any(os.access(path, os.W_OK) for path in (base, base / parent))
        if {"memory", "cpu", "pids"} <= offered and writable:
            return V2(base, parent)
    raise Unavailable("no writable cgroup tree with memory, cpu and pids")


def _v2_bases(mount: Path, parent: str) -> list[Path]:
    own = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                own = line.removeprefix("0::/")
    # Once moved into the leaf, our own path is the leaf's: the tree that was given to us is above it.
    own = own.removesuffix(LEAF).rstrip("/").removesuffix(parent).rstrip("/")
    return [mount, mount / own] if own else [mount]


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name for a cgroup")
    return name


def _write(file: Path, value: object) -> None:
    with file.open("w", encoding="ascii") as stream:
        stream.write(f"{value}")


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _table(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _without_cache(usage: int | None, cache: int) -> int | None:
    return None if usage is None else max(0, usage - cache)
