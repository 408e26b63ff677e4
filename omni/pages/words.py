"""Times, sizes and states as people read them. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any

_TONES = {
    "ok": ("running", "healthy", "succeeded", "ready", "up", "leader", "ok", "active", "resolved"),
    "busy": ("deploying", "building", "rolling", "starting", "pending", "placed", "queued", "joining", "follower",
             "stopping", "baking", "switching", "switched", "awaiting_promotion", "reverting", "busy"),
    "warn": ("degraded", "draining", "unhealthy", "reverted", "candidate", "paused", "warn", "warning",
             "acknowledged", "flapping"),
    "bad": ("failed", "crashed", "lost", "down", "bad", "critical", "open", "firing", "error"),
}  # fmt: skip
_BY_WORD = {word: tone for tone, words in _TONES.items() for word in words}
SERVICE_TONES = {"healthy": "ok", "passing": "ok", "degraded": "warn", "warning": "warn", "unhealthy": "bad",
                 "failing": "bad"}  # fmt: skip
NOTHING = "\N{EN DASH}"  # where nobody measured
STEPS = {
    "begin": "begun", "place": "placed", "assign": "placed", "explain": "no node for", "stop": "stopped",
    "forget": "dealt with", "progress": "got further:", "finish": "done:", "faildeployment": "failed:",
    "revert": "goes back:", "bake": "being watched:", "promote": "promoted:", "shift": "requests switched:",
    "giveup": "given up:", "purge": "removed",
}  # fmt: skip
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def tone(status: str) -> str:
    """ok, busy, warn, bad or off."""
    return _BY_WORD.get(status, "off")


def moment(value: Any) -> dt.datetime | None:
    """From a datetime or an RFC 3339 text."""
    if not value:
        return None
    found = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def ago(then: dt.datetime, now: dt.datetime) -> str:
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return f"in {span(-seconds)}"
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def span(seconds: Any) -> str:
    """`42 s`, `3 min`, `5 h`, `2 d`: one unit, rounded down, as one says it."""
    if seconds is None:
        return NOTHING
    whole = int(float(seconds))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if whole >= length * (2 if unit == "d" else 1):
            return f"{whole // length} {unit}"
    return f"{whole} s"


def size(value: Any) -> str:
    """In binary units with three digits at most; a dash where nobody measured."""
    if value is None or value == "":
        return NOTHING
    number = float(value)
    for unit in _UNITS:
        if abs(number) < 1000 or unit == _UNITS[-1]:
            digits = 0 if unit == "B" or number >= 100 else 1
            return f"{number:.{digits}f} {unit}"
        number /= 1024
    raise AssertionError("unreachable")


def figure(value: Any, unit: str = "") -> str:
    """A number with as many digits as it is worth; a dash where nobody measured."""
    if value is None or value == "":
        return NOTHING
    number = float(value)
    text = f"{number:.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.1f}"
    if 0 < abs(number) < 0.1:
        text = f"{number:.2g}"
    return f"{text} {unit}".rstrip() if unit != "%" else f"{text} %"
