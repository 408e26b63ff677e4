"""The control plane's figures over time: what each member counted, condensed and shown by `?window=&step=`.

Owns the stored form: one row for each member and step, which holds all series of that member as JSON, so that a step
costs one insert and a window one range of the primary key. A series is named `name` or `name|label=value,…`. Counts
of one step can be added to those of the next, so rolling up loses nothing but time. Pure but for `store` and `read`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from instances.telemetry import statements as sql
from instances.telemetry.spans import Span
from omni.kernel import clock

STEPS_S = (10, 60, 600)
_COLUMNS = ("node", "step_s", "at_us", "series")
_MOST_SERIES = 400


@dataclass(frozen=True, slots=True)
class Counted:
    """One series in one step: a counter's growth, a gauge's readings, or a histogram's growth with its bounds."""

    count: float  # of what was observed; of a gauge: readings
    total: float  # their sum; of a counter: its growth
    peak: float | None = None  # of a gauge
    bounds: tuple[float, ...] = ()  # upper bounds in seconds; the last bucket has none
    buckets: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        return "histogram" if self.buckets else "counter" if self.peak is None else "gauge"

    def plus(self, other: Counted) -> Counted:
        """Both steps, or both members, in one."""
        peaks = [peak for peak in (self.peak, other.peak) if peak is not None]
        buckets, bounds = self.buckets or other.buckets, self.bounds or other.bounds
        if self.buckets and other.buckets and len(self.buckets) == len(other.buckets):
            buckets = tuple(a + b for a, b in zip(self.buckets, other.buckets, strict=True))
        count, total = self.count + other.count, self.total + other.total
        return Counted(count, total, max(peaks) if peaks else None, bounds, buckets)

    def to_json(self) -> list[Any]:
        if self.buckets:
            return [self.count, round(self.total, 6), None, self.bounds, self.buckets]
        return [self.count, round(self.total, 6)] if self.peak is None else [self.count, self.total, self.peak]


def from_json(data: Sequence[Any]) -> Counted:
    bounds, buckets = (tuple(data[3]), tuple(data[4])) if len(data) > 3 else ((), ())
    return Counted(data[0], data[1], data[2] if len(data) > 2 else None, bounds, buckets)


Series = Mapping[str, Counted]


def series_key(name: str, labels: Mapping[str, str]) -> str:
    return name if not labels else f"{name}|{','.join(f'{key}={labels[key]}' for key in sorted(labels))}"


def split_key(key: str) -> tuple[str, dict[str, str]]:
    name, _, rest = key.partition("|")
    return name, dict(pair.partition("=")[::2] for pair in rest.split(",")) if rest else {}


def merged(parts: Iterable[Series]) -> dict[str, Counted]:
    found: dict[str, Counted] = {}
    for part in parts:
        for key, counted in part.items():
            found[key] = found[key].plus(counted) if key in found else counted
    return found


def quantile_s(counted: Counted, share: float) -> float | None:
    """Interpolated within its bucket; the highest bound for what lies above all of them; None without any."""
    everything = sum(counted.buckets)
    if not everything:
        return None
    rank, below = share * everything, 0.0
    for i, count in enumerate(counted.buckets):
        if count and below + count >= rank:
            if i >= len(counted.bounds):
                break
            low = counted.bounds[i - 1] if i else 0.0
            return float(round(low + (counted.bounds[i] - low) * (rank - below) / count, 6))
        below += count
    return counted.bounds[-1] if counted.bounds else None


def store(node: str, step_s: int, at_us: int, series: Series) -> None:
    shown = orjson.dumps({key: counted.to_json() for key, counted in series.items()}).decode()
    sql.insert("instances_platformsample", _COLUMNS, [(node, step_s, at_us, shown)], again="replace")


def rows(step_s: int, start_us: int, end_us: int) -> list[tuple[str, int, dict[str, Counted]]]:
    found = sql.select(
        "SELECT node, at_us, series FROM instances_platformsample WHERE step_s = %s AND at_us >= %s AND at_us < %s",
        [step_s, start_us, end_us],
    )
    return [
        (node, int(at_us), {key: from_json(data) for key, data in orjson.loads(text).items()})
        for node, at_us, text in found
    ]


def roll_up(source: int, target: int, start_us: int, end_us: int) -> None:
    """One step of `target` seconds from those of `source`, of each member; storing it again changes nothing."""
    by_node: dict[str, list[dict[str, Counted]]] = {}
    for node, _, series in rows(source, start_us, end_us):
        by_node.setdefault(node, []).append(series)
    for node, parts in by_node.items():
        store(node, target, start_us, merged(parts))


def read(span: Span, *, names: frozenset[str] | None = None, node: str | None = None) -> dict[str, Any]:
    """The window as columns: times, and for each series its figures at them; null where nothing was counted."""
    end = clock.to_us(clock.now())
    first = (end - span.window_us) // span.step_us * span.step_us + span.step_us
    times = range(first, end + 1, span.step_us)
    found: dict[str, dict[int, dict[str, Counted]]] = {}
    for member, at_us, series in rows(stored_step_s(span), first, end + 1):
        if node is not None and member != node:
            continue
        at = at_us - at_us % span.step_us
        for key, counted in series.items():
            if names is not None and key.partition("|")[0] not in names:
                continue
            members = found.setdefault(key, {}).setdefault(at, {})
            members[member] = members[member].plus(counted) if member in members else counted
    shown = [_shown(key, found[key], times, span) for key in sorted(found)[:_MOST_SERIES]]
    return {
        "window_s": span.window_us / 1e6,
        "step_s": span.step_us / 1e6,
        "at": [clock.rfc3339(clock.from_us(at)) for at in times],
        "series": shown,
        "left_out": max(0, len(found) - _MOST_SERIES),
    }


def stored_step_s(span: Span) -> int:
    """The coarsest stored resolution that is at least as fine as what is asked for."""
    return max((step for step in STEPS_S if step * 1_000_000 <= span.step_us), default=STEPS_S[0])


def _shown(key: str, found: Mapping[int, Mapping[str, Counted]], times: range, span: Span) -> dict[str, Any]:
    name, labels = split_key(key)
    kind = next(iter(next(iter(found.values())).values())).kind
    values = [_value(kind, found.get(at), span.step_us / 1e6) for at in times]
    columns = {column: [value.get(column) for value in values] for column in _COLUMNS_OF[kind]}
    return {"name": name, "labels": labels, "kind": kind, **columns}


_COLUMNS_OF = {
    "gauge": ("value", "max"),
    "counter": ("count", "per_second"),
    "histogram": ("count", "per_second", "mean_s", "p50_s", "p95_s", "p99_s"),
}


def _value(kind: str, members: Mapping[str, Counted] | None, step_s: float) -> dict[str, Any]:
    if not members:
        return {}
    if kind == "gauge":  # each member's own average; several members say different things, the highest is shown
        values = [c.total / c.count for c in members.values() if c.count]
        return {"value": max(values, default=None), "max": max((c.peak or 0 for c in members.values()), default=None)}
    whole = merged([{"": counted} for counted in members.values()])[""]
    if kind == "counter":
        return {"count": whole.total, "per_second": round(whole.total / step_s, 4)}
    return {
        "count": whole.count,
        "per_second": round(whole.count / step_s, 4),
        "mean_s": round(whole.total / whole.count, 6) if whole.count else None,
        **{f"p{share}_s": quantile_s(whole, share / 100) for share in (50, 95, 99)},
    }
