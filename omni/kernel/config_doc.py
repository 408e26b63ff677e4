"""Writes the tables of docs/config.md from the code: `python -m omni.kernel.config_doc --write`.

Owns the generated part of that page, between two marks; the text around it is written by hand. Must not invent
meanings: they stand beside the keys in `config_keys`.
"""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from omni.kernel.config_keys import InstanceEntry, Keys
from omni.kernel.config_sources import INTERNAL_VARIABLES, KEYS, KeyInfo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "config.md"
BEGIN, END = "<!-- generated: python -m omni.kernel.config_doc --write -->", "<!-- end of the generated part -->"


def tables() -> str:
    """The keys, section by section, and the variables that are no keys."""
    parts = ["## Top level\n", _table(info for info in KEYS.values() if len(info.path) == 1)]
    parts += ["Each entry of `instances`:\n", _entry_table()]
    for name, field in Keys.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            parts += [f"## `{name}`\n", f"{(kind.__doc__ or '').strip()}\n"]
            parts.append(_table(info for info in KEYS.values() if info.path[0] == name))
    parts += ["## Variables that are no keys\n", "Set by our own processes, by the tests or for the command line.\n"]
    parts.append(
        "| variable | meaning |\n| --- | --- |\n" + _rows((f"`{k}`", v) for k, v in INTERNAL_VARIABLES.items())
    )
    return "\n".join(parts)


def render(page: str) -> str:
    """`page` with its generated part renewed."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{tail}"


def _rows(rows: typing.Iterable[tuple[str, ...]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def _table(infos: typing.Iterable[KeyInfo]) -> str:
    head = "| key | variable | type | default | meaning |\n| --- | --- | --- | --- | --- |\n"
    return head + _rows(
        (
            f"`{info.name}`",
            f"`{info.variable}`",
            _type(info.field.annotation),
            _default(info),
            info.field.description or "",
        )
        for info in infos
    )


def _entry_table() -> str:
    rows = []
    for name, field in InstanceEntry.model_fields.items():
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        rows.append((f"`{name}`", _type(field.annotation), default, field.description or ""))
    return "| key | type | default | meaning |\n| --- | --- | --- | --- |\n" + _rows(rows)


def _type(annotation: Any) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false", SecretStr: "text, secret"}
    if annotation in names:
        return names[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return "list of entries"
    if origin is dict:
        return "object of texts"
    return _type(next(argument for argument in arguments if argument is not type(None)))


def _default(info: KeyInfo) -> str:
    value = info.field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or value == "":
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def main(arguments: list[str]) -> int:
    page = PAGE.read_text(encoding="utf-8")
    wanted = render(page)
    if arguments == ["--write"]:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    return 0 if page == wanted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
