"""Where inside an instance a volume may appear. Pure.

Owns the rule: a path of its own, apart from the system's, the release's and other volumes'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PATH = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
# What a sandbox or an image has there already, with all below it.
_TAKEN = ("/app", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root",
          "/run", "/sbin", "/sys", "/tmp", "/usr")  # fmt: skip  # noqa: S108 - names of places, nothing is written
_TOO_WIDE = ("/opt", "/var", "/var/lib", "/var/run", "/var/tmp")  # noqa: S108


def problem(path: str, others: Iterable[str] = ()) -> str | None:
    """Why a volume cannot be at `path`, in words; None when it can. `others` are the app's other volumes' paths."""
    if not _PATH.fullmatch(path) or len(path) > 200:
        return "An absolute path is wanted, such as /data: letters, digits, dot, dash and underscore."
    for taken in _TAKEN:
        if path == taken or path.startswith(taken + "/"):
            return f"{taken} is the system's or the release's; take a place such as /data."
    if path in _TOO_WIDE:
        return f"{path} as a whole belongs to the system; take a folder below it, or /data."
    for other in others:
        if path == other or path.startswith(other + "/") or other.startswith(path + "/"):
            return f"The app has another volume at {other}."
    return None
