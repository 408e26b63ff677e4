"""Reads config.json and the environment into one plain dictionary that knows where each value came from.

Owns file and variable syntax, the names of variables, and how a value is shown in a message (secrets masked). Must not
judge values: types are `config_keys`' and connections between keys `config_checks`' business.
"""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from omni.kernel.config_keys import Keys

# What our own processes, tests and the command line pass along; these are no keys of config.json.
INTERNAL_VARIABLES = {
    "OMNI_CONFIG": "path of config.json",
    "OMNI_NODE": "which node this process belongs to, `<address>-<port>`",
    "OMNI_ROLE": "what this process is: web, daemon, raft, agent, worker, ingress, command",
    "OMNI_NO_APT": "start.sh and test.sh install no packages of the system",
    "OMNI_PROCESS": "which of our processes this is; by it a later start finds what an earlier one left behind",
    "OMNI_SQL": "1: print SQL without a terminal too (`./start.sh --sql`)",
    "OMNI_PYTHON": "the Python that start.sh and test.sh make the virtual environment with",
    "OMNI_VENV": "where start.sh and test.sh keep the virtual environment; default `.venv`",
    "OMNI_URL": "address of the API for the `omni` command",
    "OMNI_TOKEN": "token for the `omni` command",
    "OMNI_WORKER": "name of a build worker",
    "OMNI_CONTROL_PLANE": "where a build worker finds the nodes, comma between",
    "OMNI_WORKER_TOKEN": "token of a build worker that has no cluster secret",
    "OMNI_WORKER_TLS": "folder of what proves a build worker to members of other hosts",
    "OMNI_WORKER_GIVEN": "what a build worker was told by the process that started it",
    "OMNI_WORKER_DIR": "where a build worker keeps its files",
}
INTERNAL_PREFIXES = ("OMNI_TEST_", "OMNI_BENCH_")
_SECTIONS_LEFT_OUT = ("limits", "timings")
_URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):([^@]*)@")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key of config.json: its dotted path, how the environment names it, and its pydantic field."""

    path: tuple[str, ...]
    variable: str
    field: FieldInfo

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def secret(self) -> bool:
        return SecretStr in _types_of(self.field.annotation)


def _types_of(annotation: Any) -> set[Any]:
    parts = typing.get_args(annotation)
    return {annotation}.union(*(_types_of(part) for part in parts)) if parts else {annotation}


def walk_keys(model: type[BaseModel] = Keys, above: tuple[str, ...] = ()) -> Iterator[KeyInfo]:
    """Every key that holds a value, sections opened, in the order of the models."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from walk_keys(kind, (*above, name))
            continue
        extra = info.json_schema_extra
        given = extra.get("variable") if isinstance(extra, dict) else None
        shown = [part for part in (*above, name) if part not in _SECTIONS_LEFT_OUT]
        yield KeyInfo((*above, name), str(given or "OMNI_" + "_".join(shown).upper()), info)


KEYS: dict[tuple[str, ...], KeyInfo] = {info.path: info for info in walk_keys()}
VARIABLES: dict[str, KeyInfo] = {info.variable: info for info in KEYS.values()}


@dataclass(slots=True)
class Sources:
    """The merged values, where each came from, and what was wrong with their form."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def origin(self, path: tuple[str, ...]) -> str:
        """The variable or file that gave the key at `path` (or the nearest key above it)."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.file if path and path[0] in self.values else "default"

    def complain(self, path: tuple[str, ...], value: Any, problem: str, fix: str) -> None:
        """Record one mistake as one line: key, value, where it came from, what is wrong, what to do."""
        self.errors.append(f"{'.'.join(path)} = {show(path, value)} ({self.origin(path)}): {problem}; {fix}")


def show(path: tuple[str, ...], value: Any) -> str:
    """`value` for a message: secrets masked, URL passwords masked, long ones cut."""
    info = KEYS.get(path)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if info is not None and info.secret and value:
        text = str(value)
        return f'"{mask_url(text)}"' if "://" in text else '"****"'
    if any(word in part for part in path for word in ("secret", "password", "token")) and isinstance(value, str):
        return '"****"'  # a misspelt key may hold a secret all the same
    text = mask_url(json.dumps(value, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def mask_url(text: str) -> str:
    """`text` with the password of every URL in it replaced."""
    return _URL_PASSWORD.sub(r"\1:****@", text)


def closest(word: str, known: list[str]) -> str:
    """A hint at the name that was probably meant."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f'did you mean "{near[0]}"?' if near else ""


def read(path: Path | None, environ: Mapping[str, str]) -> Sources:
    """Merge the file (none is allowed when `path` is None) and the `OMNI_…` variables; variables win."""
    sources = Sources(file=path.name if path else "config.json")
    if path is not None:
        _read_file(path, sources)
    for variable, text in sorted(environ.items()):
        if variable.startswith("OMNI_"):
            _read_variable(variable, text, sources)
    return sources


def _read_file(path: Path, sources: Sources) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in sorted({name for name in names if names.count(name) > 1}):
            sources.errors.append(f"{name} ({path.name}): the key is given twice; keep one of them")
        return dict(pairs)

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except FileNotFoundError:
        sources.errors.append(
            f"{path}: there is no such file; give its path with --config, or write one (docs/config.md)"
        )
        return
    except OSError as error:
        sources.errors.append(f"{path}: cannot be read: {error.strerror}; mend its permissions")
        return
    except json.JSONDecodeError as error:
        sources.errors.append(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}; mend the JSON there")
        return
    except UnicodeDecodeError:
        sources.errors.append(f"{path}: is not UTF-8; save it as UTF-8")
        return
    if not isinstance(data, dict):
        sources.errors.append(f"{path}: holds no JSON object; write {{…}} (docs/config.md)")
        return
    sources.values = data


def _read_variable(variable: str, text: str, sources: Sources) -> None:
    info = VARIABLES.get(variable)
    if info is None:
        if variable not in INTERNAL_VARIABLES and not variable.startswith(INTERNAL_PREFIXES):
            hint = closest(variable, list(VARIABLES))
            sources.warnings.append(
                f"{variable} is no variable of ours and changes nothing; {hint or 'see docs/config.md'}"
            )
        return
    place = sources.values
    for part in info.path[:-1]:
        below = place.setdefault(part, {})
        if not isinstance(below, dict):
            return  # the file holds something else there; pydantic says so
        place = below
    place[info.path[-1]] = _parse(text, info)
    sources.origins[info.path] = variable


def _parse(text: str, info: KeyInfo) -> Any:
    """The text of a variable as JSON would have it; what cannot be read stays text and is refused by its type."""
    kinds = _types_of(info.field.annotation)
    if (str in kinds and dict not in {typing.get_origin(kind) for kind in kinds}) or SecretStr in kinds:
        return text
    if typing.get_origin(info.field.annotation) is typing.Literal:
        return text
    word = text.strip().lower()
    if bool in kinds and word in ("1", "yes", "on", "0", "no", "off"):
        return word in ("1", "yes", "on")
    if type(None) in kinds and word == "":
        return None
    try:
        return json.loads(word if bool in kinds else text)
    except json.JSONDecodeError:
        return text
