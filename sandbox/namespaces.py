"""A process of ours that is to be trusted less: root of nothing but a few users, in a view of the file system.

Owns becoming that process: `narrow` hides directories from it, `become` makes it root of a user namespace whose only
users are the given ones. In there it may start programs under each of them, in sandboxes, with cgroups that are its
own; outside it is one ordinary user, who owns nothing of the platform's. Both need root and a process with one thread,
and cannot be undone. Decides no policy.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 1, 2, 4, 32, 4096, 16384, 1 << 19
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """The kernel, or whoever confines us, does not permit it; the text says what."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A path that stays visible below a hidden directory; `source` is what appears there, if not itself."""

    path: str
    writable: bool = False
    source: str = ""


def closed_above(path: str, uid: int) -> str | None:
    """The highest directory on the way to `path` that user `uid` may not pass; None when the way is open."""
    place = Path(path)
    for directory in reversed(place.parents):
        try:
            about = directory.stat()
        except OSError:
            return None
        if about.st_uid != uid and not about.st_mode & stat.S_IXOTH:
            return str(directory)
    return None


def narrow(hidden: Iterable[str], shown: Iterable[Shown]) -> None:
    """Put an empty directory over each of `hidden`, with `shown` in their places. For this process and its children."""
    _call("unshare", _CLONE_NEWNS)
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)
    covered = sorted(set(hidden), key=_depth)
    steps = [(path, None) for path in covered]
    kept = [one for one in shown if any(_is_below(one.path, top) for top in covered)]
    # Held open, because they cannot be reached any more once something lies over them.
    handles = {one.path: os.open(one.source or one.path, os.O_PATH | os.O_CLOEXEC) for one in kept}
    try:
        for path, one in sorted([*steps, *((one.path, one) for one in kept)], key=lambda step: _depth(step[0])):
            if one is None:
                Path(path).mkdir(mode=0o755, parents=True, exist_ok=True)  # it may lie below another hidden one
                _mount("none", path, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
            else:
                _show(one, handles[path])
    finally:
        for handle in handles.values():
            os.close(handle)


def become(uid: int, users: Iterable[tuple[int, int]]) -> None:
    """Be root of a user namespace of `users` (first, last); outside we are `uid`, the only one that 0 stands for."""
    lines = f"0 {uid} 1\n" + "".join(f"{first} {first} {last - first + 1}\n" for first, last in users)
    asked, told = os.pipe(), os.pipe()
    helper = os.fork()
    if helper == 0:
        _write_maps(os.getppid(), lines, asked, told)
    os.close(asked[0])
    os.close(told[1])
    try:
        _call("unshare", _CLONE_NEWUSER)
        os.write(asked[1], b"x")
        if os.read(told[0], 1) != b"x":
            raise Unavailable("the kernel refuses the users of the namespace")
    finally:
        os.close(asked[1])
        os.close(told[0])
        os.waitpid(helper, 0)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _write_maps(pid: int, lines: str, asked: tuple[int, int], told: tuple[int, int]) -> None:
    """In a child that stays outside, for only from there may users of others be given. Never returns."""
    try:
        os.close(asked[1])
        os.close(told[0])
        if os.read(asked[0], 1) == b"x":
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                    file.write(lines)
            os.write(told[1], b"x")
    except OSError:
        os._exit(1)
    os._exit(0)


def _show(one: Shown, handle: int) -> None:
    target = Path(one.path)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.touch()
    _mount(f"/proc/self/fd/{handle}", one.path, None, _MS_BIND | _MS_REC)
    if not one.writable:
        # The flags that the mount has already must be named again, or they are lost.
        kept = _flags_of(os.statvfs(one.path).f_flag)
        _mount("none", one.path, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _flags_of(statvfs: int) -> int:
    """statvfs and mount name some flags by other numbers."""
    names = {os.ST_NOSUID: 2, os.ST_NODEV: 4, os.ST_NOEXEC: 8, os.ST_NOATIME: 1024, os.ST_RELATIME: 1 << 21}
    return sum(mount for name, mount in names.items() if statvfs & name)


def _depth(path: str) -> int:
    return len(Path(path).parts)


def _is_below(path: str, top: str) -> bool:
    return Path(path).is_relative_to(top)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags),
          data.encode() if data else None)  # fmt: skip


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise Unavailable(f"{name} is refused: {os.strerror(number)}")
