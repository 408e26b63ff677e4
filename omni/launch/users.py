"""Which user ids this platform gives to apps, builds and its worker: a block that no other platform on this host has.

Two platforms with the same users would read each other's files and filter each other's traffic. Owns the claims of
blocks (one file each in /run, gone with a reboot) and `uid_base` in the state directory, which remembers ours. A block
named in the configuration is kept, and told about when another platform has it. Only root can give users at all.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from omni.kernel.config import Config
from omni.launch import proc
from sandbox.identity import ALL_SLOTS

CLAIMS = Path("/run/omni-users")
_FURTHER, _STEP, _MOST = 400_000, 25_000, 100  # away from the ranges of /etc/subuid
_STARTING_S = 120.0  # a claim this young is of a platform that may have no process yet


def claim(config: Config) -> str:
    """Make a block ours before anything is given to its users; a warning when it is another platform's as well."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return ""
    given = config.agent.uid_base
    named = "uid_base" in config.agent.model_fields_set
    try:
        for base in [given] if named else _candidates(given, _remembered(config)):
            if (rival := _take(base, config.state)) is None:
                _remember(config, base)
                return ""
    except OSError:
        return ""  # nobody can tell here; as if there were no other
    _remember(config, given)
    return (
        f"agent.uid_base = {given}: the platform in {rival} gives out the same users, so their apps can hinder each "
        f"other; set agent.uid_base to another, {_FURTHER} for example"
    )


def base_of(config: Config) -> int:
    """The first id of our block."""
    return _remembered(config) or config.agent.uid_base


def _candidates(given: int, remembered: int | None) -> Iterator[int]:
    if remembered is not None:
        yield remembered
    yield given
    yield from (_FURTHER + _STEP * number for number in range(_MOST))


def _take(base: int, state: Path) -> str | None:
    """None when the block is ours now, else whose it is."""
    CLAIMS.mkdir(mode=0o755, exist_ok=True)
    for path in CLAIMS.iterdir():
        overlaps = path.name.isdigit() and 0 < abs(int(path.name) - base) < ALL_SLOTS + 2
        if overlaps and (holder := _holder(path)) not in (None, str(state)):
            return holder
    path = CLAIMS / str(base)
    for _ in range(2):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(str(state))
            return None
        except FileExistsError:
            holder = _holder(path)
            if holder == str(state):
                return None
            if holder is not None:
                return holder
            path.unlink(missing_ok=True)
    return _holder(path)


def _holder(path: Path) -> str | None:
    """The state directory that has claimed a block and lives; None for a claim that is over."""
    try:
        state, age = path.read_text(encoding="utf-8"), time.time() - path.stat().st_mtime
    except OSError:
        return None
    return state if (age < _STARTING_S and Path(state).exists()) or proc.marked(state) else None


def _remembered(config: Config) -> int | None:
    try:
        return int((config.state / "uid_base").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _remember(config: Config, base: int) -> None:
    if _remembered(config) != base:
        (config.state / "uid_base").write_text(f"{base}\n", encoding="ascii")
