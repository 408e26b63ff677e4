"""What a builder is: a function from an unpacked upload to a plan. Pure but for reading the tree.

A builder
* must say what it looks for (`LOOKS_FOR`, shown when nothing was detected);
* must answer None for a tree that is not its kind, and raise BuildFailed for one that is but cannot be built;
* must name its commands as data and run nothing: the pipeline runs them in the sandbox, in /app, where the tree lies;
* may read the tree only here, before any command ran: afterwards it is whatever hostile code has made of it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from releases.build_errors import BuildFailed
from releases.contract import BuilderName

APP = "/app"
CACHE = "/cache"
PLATFORM = "/opt/omni"  # what the platform lends to a build, read-only
_READ_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a build. `failure` is the code of the build when it fails."""

    title: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    failure: str = "command_failed"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a tree becomes a release. `files` are put into the tree afterwards (name below /app → content)."""

    builder: BuilderName
    commands: list[Command] = field(default_factory=list)
    process_types: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    image: bool = False  # an engine builds it, in no sandbox of ours; its package is an image


@dataclass(frozen=True)
class HostTools:
    """What this host lends to builds. `None`: not there."""

    python: str
    pip_directory: str | None
    node: str | None
    npm: str | None
    relocate: bool = False  # without a sandbox the tree is not at /app when it runs

    @classmethod
    def found(cls, *, relocate: bool = False) -> HostTools:
        # Run from its own place, our pip would take our packages for the app's: it is lent in a sandbox only.
        lent = None if relocate else _pip_directory()
        return cls(base_python(), lent, shutil.which("node"), shutil.which("npm"), relocate)

    @property
    def path(self) -> str:
        """PATH of build commands."""
        here = [f"{APP}/.venv/bin", f"{APP}/node_modules/.bin", f"{sys.base_prefix}/bin"]
        tools = [os.path.dirname(tool) for tool in (self.node, self.npm) if tool]  # noqa: PTH120 (text, not a file)
        return ":".join(dict.fromkeys([*here, *tools, "/usr/local/bin", "/usr/bin", "/bin"]))


@dataclass(frozen=True)
class Source:
    """An unpacked upload, before any of its commands ran."""

    tree: Path
    runtime: str
    tools: HostTools
    procfile: dict[str, str] | None = None  # process types, when there is a Procfile

    def has(self, name: str) -> bool:
        return (self.tree / name).is_file()

    def read(self, name: str) -> str:
        """The text of a small file; BuildFailed when it is not one. Links of an upload stay in its tree."""
        try:
            with (self.tree / name).open("rb") as file:
                data = file.read(_READ_LIMIT + 1)
        except OSError as error:
            raise BuildFailed("unreadable_file", f"{name} cannot be read: {error.strerror}") from error
        if len(data) > _READ_LIMIT:
            raise BuildFailed("unreadable_file", f"{name} is larger than {_READ_LIMIT} bytes")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BuildFailed("unreadable_file", f"{name} is not UTF-8 text") from error

    @cached_property
    def top(self) -> list[str]:
        """Names at the top of the tree, directories with a slash."""
        return sorted(entry.name + ("/" if entry.is_dir() else "") for entry in self.tree.iterdir())


Builder = Callable[[Source], Plan | None]


def base_python() -> str:
    """The Python that virtual environments are made from: bound into builds and instances at this very path."""
    versioned = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(versioned if versioned.exists() else Path(sys.executable).resolve())


def _pip_directory() -> str | None:
    spec = find_spec("pip")
    return str(Path(spec.origin).parent) if spec and spec.origin else None
