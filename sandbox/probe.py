"""What this host can do to keep programs apart, found out by trying it.

Owns the trial runs and the facts they yield. Decides nothing with them, and caches nothing: a probe takes a few
tenths of a second, the caller keeps the answer.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sandbox import bubblewrap, cgroups, identity, network, seccomp

_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """`notes` say in plain sentences why something cannot be had. `user_switch`: programs get a uid of their own.

    `filter` is the file with the filter of system calls.
    """

    isolation: Literal["bubblewrap", "none"]
    limits: Literal["cgroup-v1", "cgroup-v2", "none"]
    network: Literal["filtered", "shared"]
    notes: list[str] = field(default_factory=list)
    bwrap: str | None = None
    user_switch: bool = False
    filter: str | None = None


def probe(
    bwrap_path: str | None = None,
    *,
    cgroup_parent: str = cgroups.PARENT,
    filtered: bool | None = None,
    user: int = identity.DEFAULT_BASE,
) -> Facts:
    """Try everything once. `bwrap_path` goes before $OMNI_BWRAP_BIN, the system's and the wheel's.

    `filtered`: whether somebody else keeps our users from control ports; None: that it is for us to do. `user` is one
    that programs may get.
    """
    notes: list[str] = []
    switch = identity.may_change_user()
    if not switch:
        notes.append("not root: programs run under the platform's own user")
    bwrap, calls = _working_bwrap(bwrap_path, switch, user, notes)
    if bwrap is None and switch and not _python_is_open():
        notes.append(f"programs cannot run Python: {sys.base_prefix} is closed to users other than root")
    return Facts(
        isolation="bubblewrap" if bwrap else "none",
        limits=_limits(notes, cgroup_parent),
        network=_network(notes) if filtered is None else "filtered" if filtered else "shared",
        notes=notes,
        bwrap=bwrap,
        user_switch=switch,
        filter=calls,
    )


def _working_bwrap(given: str | None, switch: bool, user: int, notes: list[str]) -> tuple[str | None, str | None]:
    """bubblewrap, and the filter of system calls that it takes here."""
    if not sys.platform.startswith("linux"):
        notes.append(f"no sandbox on {sys.platform}")
        return None, None
    found = bubblewrap.find_bwrap(given)
    if found is None:
        notes.append(f"no isolation: bubblewrap not found{f' at {given}' if given else ''}")
        return None, None
    calls = seccomp.filter_file()
    reason = _trial(Facts("bubblewrap", "none", "shared", [], found, switch, calls), user)
    if reason is None:
        if calls is None:
            notes.append(f"system calls are not filtered: no filter for {platform.machine()}")
        return found, calls
    if calls is not None and _trial(Facts("bubblewrap", "none", "shared", [], found, switch), user) is None:
        notes.append(f"system calls are not filtered: {reason}")
        return found, None
    notes.append(f"no isolation: {reason}")
    return None, None


def _trial(facts: Facts, user: int) -> str | None:
    """None when a sandbox keeps what it promises here, else the reason why not."""
    spec = bubblewrap.Spec(
        argv=["/bin/sh", "-c", "id -u; cat /etc/shadow >/dev/null 2>&1 && echo leak; grep CapEff /proc/self/status"],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        binds=bubblewrap.runtime_binds(),
        uid=user,
        gid=user,
        die_with_parent=True,
    )
    try:
        argv = bubblewrap.command(spec, facts)
        done = subprocess.run(
            argv,
            env=bubblewrap.environment(spec, facts),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap did not run: {error}"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"bubblewrap ended with {done.returncode}"])[-1]
    expected = [str(user if facts.user_switch else os.getuid()), "CapEff:\t0000000000000000"]
    return None if done.stdout.splitlines() == expected else f"the sandbox leaks: {done.stdout.strip()!r}"


def _python_is_open() -> bool:
    """Whether another user can reach this Python by its path, as it must without a sandbox."""
    prefix = Path(sys.base_prefix).resolve()
    return all(directory.stat().st_mode & 0o001 for directory in (prefix, *prefix.parents))


def _limits(notes: list[str], parent: str) -> Literal["cgroup-v1", "cgroup-v2", "none"]:
    try:
        return cgroups.version(parent)
    except cgroups.Unavailable as error:
        notes.append(f"limits are not enforced: {error}")
        return "none"


def _network(notes: list[str]) -> Literal["filtered", "shared"]:
    try:
        network.trial()
    except network.Unavailable as error:
        notes.append(f"network is shared with the host: {error}")
        return "shared"
    return "filtered"
