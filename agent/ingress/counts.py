"""From lines of the access log to counts per instance and window.

Owns the arithmetic, and nothing else; pure. The latency counted is the time to the response's first byte as Caddy saw
it, so that long downloads, event streams and WebSockets do not drown the rest; without one (no instance answered) it is
the request's whole duration.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import orjson

from agent.ingress import names
from agent.routing import LATENCY_BUCKETS_MS, RequestCount

CLOSE_AFTER_S = 1.0  # after a window's end, for lines that are still being written
MAX_UPSTREAMS = 20000
_WIDTH = len(LATENCY_BUCKETS_MS) + 1

Key = tuple[int, int, int]  # window number, app, instance (0: no instance answered)


@dataclass(slots=True)
class Cell:
    requests: int
    failed: int
    histogram: list[int]
    retried: int = 0
    refused: int = 0


class Counter:
    """The windows that are still open."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._cells: dict[Key, Cell] = {}
        self._known: dict[str, tuple[int, int] | None] = {}

    def add(self, line: bytes) -> None:
        """Count one line; what is not a line of ours, or of no app, counts nowhere."""
        try:
            entry = orjson.loads(line)
            upstream = entry["upstream"]
            whose = self._known[upstream] if upstream in self._known else self._whose(upstream)
            if whose is None:
                return
            ms = entry["ms"]
            if ms is None:
                ms = entry["duration"] * 1000
            key = (int(entry["ts"] / self._window_s), *whose)
            status = entry["status"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(0, 0, [0] * _WIDTH)
        cell.requests += 1
        cell.histogram[bisect_left(LATENCY_BUCKETS_MS, ms)] += 1
        if status >= 500:
            cell.failed += 1
        elif status >= 400:
            cell.refused += 1
        if entry.get("retries"):
            cell.retried += 1

    def _whose(self, upstream: str) -> tuple[int, int] | None:
        label = names.decode(upstream.rpartition(":")[0])
        if len(self._known) >= MAX_UPSTREAMS:
            self._known.clear()
        self._known[upstream] = (label.app_id, label.instance_id) if label is not None and label.app_id else None
        return self._known[upstream]

    def close(self, now: float) -> list[RequestCount]:
        """Take out the windows that have ended by `now` (seconds since the epoch), oldest first."""
        open_window = int((now - CLOSE_AFTER_S) / self._window_s)
        rows = []
        for key in sorted(key for key in self._cells if key[0] < open_window):
            cell = self._cells.pop(key)
            rows.append(
                RequestCount(
                    app_id=key[1],
                    instance_id=key[2],
                    at_us=int((key[0] + 1) * self._window_s * 1_000_000),
                    window_s=self._window_s,
                    requests=cell.requests,
                    failed=cell.failed,
                    histogram=cell.histogram,
                    retried=cell.retried,
                    refused=cell.refused,
                )
            )
        return rows

    def dump(self) -> list[list[Any]]:
        return [
            [*key, cell.requests, cell.failed, cell.histogram, cell.retried, cell.refused]
            for key, cell in self._cells.items()
        ]

    def restore(self, cells: list[list[Any]]) -> None:
        self._cells = {(window, app, instance): Cell(*counts) for window, app, instance, *counts in cells}
