"""What differs between two releases: code, processes, configuration. Pure; a secret's value is never told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = "not set"
_HIDDEN = "secret"


@dataclass(frozen=True, slots=True)
class Side:
    """One release. `env` is opened; `secrets` are the names in it whose values nobody may see."""

    package: str
    processes: Mapping[str, str]
    fields: Mapping[str, Any]
    env: Mapping[str, str]
    secrets: frozenset[str]


@dataclass(frozen=True, slots=True)
class Difference:
    what: str
    name: str
    before: str
    after: str


def differences(before: Side, after: Side) -> list[Difference]:
    """In the order code, processes, configuration, environment; empty when both run the same way."""
    found = []
    if before.package != after.package:
        found.append(Difference("code", "package digest", before.package[:16], after.package[:16]))
    found += [Difference("process", name, then, now) for name, then, now in _pairs(before.processes, after.processes)]
    found += [Difference("setting", name, then, now) for name, then, now in _pairs(before.fields, after.fields)]
    for name in sorted({*before.env, *after.env}):
        hidden = name in before.secrets or name in after.secrets
        then, now = before.env.get(name), after.env.get(name)
        kind = (name in before.secrets) != (name in after.secrets) and None not in (then, now)
        if then != now or kind:
            found.append(Difference("environment", name, _shown(then, hidden), _shown(now, hidden, then)))
    return found


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, _text(before.get(name)), _text(after.get(name)))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _text(value: Any) -> str:
    if value is None or value == {}:
        return _ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value[name]}" for name in sorted(value))
    return str(value)


def _shown(value: str | None, hidden: bool, other: str | None = None) -> str:
    if value is None:
        return _ABSENT
    if not hidden:
        return value
    return "another secret" if other is not None and other != value else _HIDDEN
