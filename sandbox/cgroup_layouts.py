"""How cgroups lie in the file system: v1's separate trees and v2's one, and writing their files.

Owns the directories `omni/<name>` and what is written into them. Raises OSError; who calls knows what that means.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PARENT = "omni"
LEAF = f"{PARENT}-platform"  # v2: where our own processes are, because an inner node may hold none
_GIVEN_V2 = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_CPU_PERIOD_US = 100_000
_UNLIMITED_V1 = 1 << 60  # v1 writes "no limit" as a huge page-rounded number


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
        write(self._file("cpu", name, "cpu.cfs_period_us"), _CPU_PERIOD_US)
        write(self._file("cpu", name, "cpu.cfs_quota_us"), quota)
        write(self._file("cpu", name, "cpu.shares"), max(2, int(1024 * bounds.cpu_weight)))
        write(self._file("pids", name, "pids.max"), "max" if bounds.pids is None else bounds.pids)

    def _write_memory(self, name: str, memory: int) -> None:
        plain = self._file("memory", name, "memory.limit_in_bytes")
        with_swap = self._file("memory", name, "memory.memsw.limit_in_bytes")
        # memsw must never be below the plain limit: which one goes first depends on whether the limit grows.
        order = [plain, with_swap] if with_swap.exists() else [plain]
        try:
            for file in order:
                write(file, memory)
        except OSError:
            for file in reversed(order):
                write(file, memory)

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
            write(file, "FROZEN" if frozen else "THAWED")

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
        write(self._file(name, "memory.max"), "max" if bounds.memory_bytes is None else bounds.memory_bytes)
        with contextlib.suppress(OSError):  # absent without swap accounting
            write(self._file(name, "memory.swap.max"), 0 if bounds.memory_bytes is not None else "max")
        quota = "max" if bounds.cpu_quota is None else str(max(1000, int(bounds.cpu_quota * _CPU_PERIOD_US)))
        write(self._file(name, "cpu.max"), f"{quota} {_CPU_PERIOD_US}")
        write(self._file(name, "cpu.weight"), max(1, min(10_000, int(100 * bounds.cpu_weight))))
        write(self._file(name, "pids.max"), "max" if bounds.pids is None else bounds.pids)

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
        write(leaf / "cgroup.procs", os.getpid())
        for path in (top, leaf, *(top / name for name in _GIVEN_V2), leaf / "cgroup.procs"):
            os.chown(path, uid, uid)

    def _delegate(self, parent: Path) -> None:
        file = parent / "cgroup.subtree_control"
        enabled = set(file.read_text(encoding="ascii").split())
        missing = [f"+{name}" for name in ("memory", "cpu", "pids") if name not in enabled]
        if not missing:
            return
        try:
            write(file, " ".join(missing))
        except OSError:
            # An inner node may hold no process of its own: move ours into a leaf, then ask again.
            leaf = parent / LEAF
            leaf.mkdir(exist_ok=True)
            for pid in (parent / "cgroup.procs").read_text(encoding="ascii").split():
                with contextlib.suppress(ProcessLookupError):
                    write(leaf / "cgroup.procs", pid)
            write(file, " ".join(missing))

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
            write(file, int(frozen))

    def kill_at_once(self, name: str) -> bool:
        file = self._file(name, "cgroup.kill")
        if not file.exists():
            return False
        write(file, 1)
        return True

    def _file(self, name: str, file: str) -> Path:
        return self.base / self.parent / name / file


def write(file: Path, value: object) -> None:
    """What the kernel refuses is an OSError."""
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
