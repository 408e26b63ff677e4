"""What a vantage point and the control plane say to each other about services. Shared with `services`, like `protocol`.

=====================================  ==========================================================================
GET  /agent/checks?tag=                `Checks` of this node; without a list when `tag` is still the newest
POST /agent/verdicts                   `Verdicts`: changes only; an empty one says that the engine lives
POST /agent/spans                      `Spans`: history, telemetry
=====================================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["passing", "warning", "failing"]
Verdict = Literal["passing", "warning", "failing", "unknown"]
CheckType = Literal["http", "tcp", "exec", "tls", "disk"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one service. Durations in seconds; `definition` changes with everything else in here.

    `trusted` marks a check of the platform's own parts, which may look at this very host.
    """

    id: int
    definition: int
    type: CheckType
    interval_s: float
    timeout_s: float
    healthy_threshold: int = 1
    unhealthy_threshold: int = 3
    url: str = ""
    method: str = "GET"
    status_min: int = 200
    status_max: int = 399
    contains: str = ""
    host: str = ""
    port: int = 0
    server_name: str = ""
    verify: bool = True
    warn_days: float = 0.0
    fail_days: float = 0.0
    command: tuple[str, ...] = ()
    path: str = ""
    warn_percent: float = 0.0
    fail_percent: float = 0.0
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Checks:
    """Every check of one node. `checks` is None when the asker has `tag` already."""

    tag: str
    allow: list[str] = field(default_factory=list)
    deny: list[str] = field(default_factory=list)
    checks: list[Check] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What this node thinks of one service after its thresholds; `unknown` forgets it. Microseconds since the epoch."""

    id: int
    definition: int
    verdict: Verdict
    at_us: int
    detail: str = ""
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`seq` counts this engine's reports from 1; with `full` everything that was said before is forgotten."""

    node: str
    incarnation: int
    seq: int
    full: bool = False
    seen: list[Seen] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VerdictsAnswer:
    """`want_full`: whoever leads now does not know everything that was said so far."""

    want_full: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A row of checks that all came out the same; its first moment is its name, a later version replaces it."""

    service_id: int
    from_us: int
    at_us: int
    outcome: Outcome
    checks: int
    latency_ms: float | None
    latency_ms_max: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Spans:
    node: str
    spans: list[Span] = field(default_factory=list)
