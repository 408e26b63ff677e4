"""Services as the leader's watch holds them in memory: read when something about them was changed, kept when the
database is away.

Owns the reading. `Watched` is everything that a look at a service needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Max, Sum

from instances.telemetry import statements as sql
from services.decision import Memory
from services.models import Service

_FIELDS = ("id", "name", "definition", "check_spec", "interval_s", "timeout_s", "healthy_threshold",
           "unhealthy_threshold", "start_period_s", "vantage_points", "severity", "depends_on", "maintenance",
           "maintenance_until", "defined_at", "state", "state_since", "reason", "detail", "flapping",
           "memory")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Watched:
    """Times are seconds since the epoch."""

    id: int
    name: str
    definition: int
    spec: dict[str, Any] = field(hash=False)
    interval_s: float
    timeout_s: float
    healthy_threshold: int
    unhealthy_threshold: int
    start_period_s: float
    vantage_points: int | None
    severity: Any
    depends_on: tuple[str, ...]
    maintenance: bool
    maintenance_until: float | None
    defined_at: float
    stored: Memory  # as the database had it when it was read

    @property
    def type(self) -> str:
        return str(self.spec["type"])


@dataclass(frozen=True, slots=True)
class Beat:
    at: float
    ok: bool
    detail: str


def tag() -> tuple[Any, ...]:
    """Changes with every change that a person or the platform made to a service; not with what is seen of it."""
    found = Service.objects.aggregate(count=Count("id"), ids=Sum("id"), last=Max("updated_at"))
    return found["count"], found["ids"], found["last"]


def load() -> list[Watched]:
    return [_watched(row) for row in Service.objects.order_by("id").values(*_FIELDS)]


def beats() -> dict[int, Beat]:
    rows = sql.select("SELECT service_id, at_us, ok, detail FROM services_beat", [])
    return {int(id): Beat(at_us / 1e6, bool(ok), detail) for id, at_us, ok, detail in rows}


def _watched(row: dict[str, Any]) -> Watched:
    until = row["maintenance_until"]
    kept = row["memory"] or {}
    memory = Memory(
        row["state"], row["state_since"].timestamp(), row["reason"], row["detail"], row["flapping"],
        float(kept.get("points", 0.0)), float(kept.get("points_at", 0.0)), kept.get("seen"),
    )  # fmt: skip
    return Watched(
        row["id"], row["name"], row["definition"], row["check_spec"], row["interval_s"], row["timeout_s"],
        row["healthy_threshold"], row["unhealthy_threshold"], row["start_period_s"], row["vantage_points"],
        row["severity"], tuple(row["depends_on"]), row["maintenance"], until.timestamp() if until else None,
        row["defined_at"].timestamp(), memory,
    )  # fmt: skip
