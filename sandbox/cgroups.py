"""Limits on memory, CPU and process count of a whole process tree, by cgroup v1 or v2.

Owns the groups' life; where they lie is `cgroup_layouts`' business. Raises Unavailable where the host
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
from typing import Literal

from sandbox.cgroup_layouts import LEAF, PARENT, V1, V2, Bounds, Layout, write

Version = Literal["cgroup-v1", "cgroup-v2", "none"]

__all__ = ["MOUNT", "PARENT", "V1", "V2", "Group", "Unavailable"]

MOUNT = Path("/sys/fs/cgroup")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,100}\Z")


class Unavailable(Exception):
    """This host, or this user on it, cannot have cgroups; the text says why."""


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

    def doors(self) -> list[str]:
        """The files by which a process joins the group: it writes its number, or 0, into each."""
        return [str(directory / "cgroup.procs") for directory in self._directories()]

    def add(self, pid: int) -> None:
        """Move a running process in; what it started before stays where it is."""
        for directory in self._directories():
            write(directory / "cgroup.procs", pid)

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
