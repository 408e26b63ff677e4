"""`Procfile`: which processes an app has. Also the kind of an upload with nothing but one: prebuilt, run as it is."""

from __future__ import annotations

import re

from releases.build_errors import BuildFailed
from releases.builders.base import Plan, Source

LOOKS_FOR = "Procfile (lines such as `web: ./server`)"
NAME = "Procfile"
_LINE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,31}):\s*(\S.*)", re.ASCII)
_MOST_TYPES, _LONGEST_COMMAND = 32, 4096


def plan(source: Source) -> Plan | None:
    """Nothing to install: the upload is the release."""
    return None if source.procfile is None else Plan("procfile")


def parse(text: str) -> dict[str, str]:
    """Process types and their commands. Raises BuildFailed `bad_procfile` naming the line."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if not match or "\0" in stripped:
            raise _bad(number, "is not `name: command`")
        name, command = match.groups()
        if name in found:
            raise _bad(number, f"names {name} a second time")
        if len(command) > _LONGEST_COMMAND:
            raise _bad(number, f"is longer than {_LONGEST_COMMAND} characters")
        found[name] = command
    if len(found) > _MOST_TYPES:
        raise BuildFailed("bad_procfile", f"The Procfile names more than {_MOST_TYPES} process types.")
    if not found.keys() - {"release"}:
        raise BuildFailed("bad_procfile", "The Procfile names no process to run, such as `web: ./server`.")
    return found


def _bad(number: int, what: str) -> BuildFailed:
    return BuildFailed("bad_procfile", f"Line {number} of the Procfile {what}.")
