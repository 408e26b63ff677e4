"""Python: a virtual environment of the app's own in /app/.venv, filled by pip.

Detected by requirements.txt, pyproject.toml or setup.py, or by one of the start files alone. Without a Procfile the
web process is the first of app.py, main.py, server.py, started with `python`; it must listen on $PORT.
"""

from __future__ import annotations

import tomllib
from typing import Any

from releases.build_errors import BuildFailed
from releases.builders.base import PLATFORM, Command, Plan, Source

REQUIREMENTS, PROJECT, SETUP = "requirements.txt", "pyproject.toml", "setup.py"
START_FILES = ("app.py", "main.py", "server.py")
LOOKS_FOR = f"{REQUIREMENTS}, {PROJECT}, {SETUP}, {', '.join(START_FILES)} (Python)"

_PIP = ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off"]
# One binary instead of three copies: the others become links beside it.
_RELINK = 'cd .venv/bin && for n in python3 python3.*; do [ -L "$n" ] || [ ! -e "$n" ] || ln -sf python "$n"; done'
# Scripts that find their Python beside themselves, for trees that run at another path than they were built at.
_RELOCATE = r"""
import pathlib
quotes = b"'" * 3
own = b'exec\' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"'
for script in pathlib.Path(".venv/bin").iterdir():
    if script.is_file() and not script.is_symlink():
        head, _, rest = script.read_bytes().partition(b"\n")
        if head.startswith(b"#!") and b"python" in head:
            script.write_bytes(b"\n".join([b"#!/bin/sh", quotes + own, b"' " + quotes, rest]))
"""


def plan(source: Source) -> Plan | None:
    start = next((name for name in START_FILES if source.has(name)), None)
    listed = next((name for name in (REQUIREMENTS, PROJECT, SETUP) if source.has(name)), None)
    if listed is None and (start is None or source.procfile is not None):
        return None
    if source.procfile is None and start is None:
        raise BuildFailed(
            "no_web_process",
            f"{listed} says that this is Python, but nothing says how to start it: add a Procfile "
            f"(`web: python -m your_module`), or one of {', '.join(START_FILES)}.",
        )
    process_types = {"web": f"python {start}"} if start else {}
    return Plan("python", _commands(source), process_types, _notes(source, listed))


def _commands(source: Source) -> list[Command]:
    wanted = _wanted(source)
    lent = source.tools.pip_directory
    make = [source.tools.python, "-m", "venv", "--clear", "--copies", *(["--without-pip"] if lent else []), ".venv"]
    commands = [
        Command("make the virtual environment", make, failure="venv_failed"),
        Command("tidy the virtual environment", ["/bin/sh", "-c", _RELINK], failure="venv_failed"),
    ]
    if wanted:
        pip = f"{PLATFORM}/pip" if lent else "-mpip"
        install = [".venv/bin/python", pip, "install", *_PIP, *wanted]
        commands.append(Command(f"pip install {' '.join(wanted)}", install, failure="dependencies_failed"))
    if source.tools.relocate:
        commands.append(Command("make the scripts relocatable", [".venv/bin/python", "-c", _RELOCATE]))
    return commands


def _wanted(source: Source) -> list[str]:
    """What pip is to install."""
    if source.has(REQUIREMENTS):
        return ["-r", REQUIREMENTS]
    if source.has(SETUP) or (source.has(PROJECT) and _is_package(source)):
        return ["."]
    return []


def _is_package(source: Source) -> bool:
    """A pyproject.toml that holds tool settings only installs nothing."""
    try:
        project: dict[str, Any] = tomllib.loads(source.read(PROJECT))
    except tomllib.TOMLDecodeError as error:
        raise BuildFailed("bad_pyproject", f"{PROJECT}: {error}") from error
    tool = project.get("tool")
    return "project" in project or "build-system" in project or (isinstance(tool, dict) and "poetry" in tool)


def _notes(source: Source, listed: str | None) -> list[str]:
    if listed == REQUIREMENTS and source.has(PROJECT):
        return [f"{REQUIREMENTS} is installed; {PROJECT} is not"]
    return []
