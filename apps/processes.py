"""An app's process types: how many of each, how large, how checked. Pure.

Owns what the field `processes` means. `web` is the one that takes requests; its values are the app's own columns
(`instances`, `memory_mb`, …). Every other type of a Procfile has a count (0 until somebody sets one) and may differ
from the app in size, check and patience. `release` is no type that runs: it is a command before a rollout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WEB = "web"
RELEASE = "release"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
# What a type may have of its own. Changing one is a deployment, as for the app's columns of the same names.
SETTINGS = ("memory_mb", "cpu", "cpu_limit", "health_check", "restart_policy", "stop_timeout_s")
PROCESS_CHECK: dict[str, Any] = {"type": "process"}


@dataclass(frozen=True, slots=True)
class Patched:
    """What a patch of `processes` leads to: the app's own columns, and the two columns of the other types."""

    web: dict[str, Any]
    counts: dict[str, int]
    settings: dict[str, dict[str, Any]]
    named: frozenset[str] = field(default_factory=frozenset)  # types that the patch sets something of


def runnable(process_types: Iterable[str]) -> tuple[str, ...]:
    """The types of a release that instances can be of, web first."""
    found = {name for name in process_types if name != RELEASE}
    return tuple(sorted(found, key=lambda name: (name != WEB, name)))


def patched(counts: Mapping[str, int], settings: Mapping[str, Mapping[str, Any]], patch: Mapping[str, Any]) -> Patched:
    """A merge patch: `{"worker": {"instances": 2, "memory_mb": null}, "old": null}`; null takes back."""
    web: dict[str, Any] = {}
    new_counts, new_settings = dict(counts), {name: dict(own) for name, own in settings.items()}
    for name, wanted in patch.items():
        if wanted is None:
            new_counts.pop(name, None)
            new_settings.pop(name, None)
            continue
        if name == WEB:
            web = dict(wanted)
            continue
        own = new_settings.setdefault(name, {})
        for key, value in wanted.items():
            if key == "instances":
                new_counts[name] = value
            elif value is None:
                own.pop(key, None)
            else:
                own[key] = value
    named = frozenset(name for name, wanted in patch.items() if wanted)
    kept = {name: count for name, count in new_counts.items() if count}
    return Patched(web, kept, {name: own for name, own in new_settings.items() if own}, named)


def wanted(instances: int, counts: Mapping[str, int], types: Collection[str] | None) -> dict[str, int]:
    """How many instances of each type are to run; `types` are those of the wished release, None when nobody knows."""
    found = {WEB: instances, **counts}
    return {name: count for name, count in found.items() if types is None or name in types}


def memory_of(settings: Mapping[str, Mapping[str, Any]], name: str, memory_mb: int) -> int:
    return int(settings.get(name, {}).get("memory_mb", memory_mb))


def cpu_of(settings: Mapping[str, Mapping[str, Any]], name: str, cpu: float) -> float:
    return float(settings.get(name, {}).get("cpu", cpu))


def others(counts: Mapping[str, int], settings: Mapping[str, Mapping[str, Any]], memory_mb: int) -> tuple[int, int]:
    """(instances, megabytes) of all types but web: what a quota counts beside the app's own columns."""
    memory = sum(count * memory_of(settings, name, memory_mb) for name, count in counts.items())
    return sum(counts.values()), memory


def check_of(settings: Mapping[str, Mapping[str, Any]], name: str, app_check: Mapping[str, Any]) -> Mapping[str, Any]:
    """The health check of a type: its own, else the app's for web, else that its process lives."""
    if name == WEB:
        return app_check
    own: Mapping[str, Any] = settings.get(name, {}).get("health_check") or PROCESS_CHECK
    return own


def shown(app: Any, whole_check: Any) -> dict[str, dict[str, Any]]:
    """The field `processes` as the API answers it; `whole_check` puts the defaults under a stored health check."""
    known = app.process_types if app.process_types is not None else (WEB,)
    names = runnable({*known, *app.process_counts, *app.process_settings})
    return {name: _shown(app, name, whole_check) for name in names}


def _shown(app: Any, name: str, whole_check: Any) -> dict[str, Any]:
    own = app.process_settings.get(name, {}) if name != WEB else {}
    found = {key: own.get(key, getattr(app, key)) for key in SETTINGS}
    found["health_check"] = whole_check(check_of(app.process_settings, name, app.health_check))
    count = app.instances if name == WEB else app.process_counts.get(name, 0)
    return {"instances": count, **found}
