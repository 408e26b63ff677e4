"""What an ingress and the control plane say to each other: where requests go, and what became of them.

Owns the shape of those messages, and nothing else; `agent.protocol` lists the calls that carry them, `agent.plain`
turns them into JSON. Shared with `instances`, which is why it may import neither Django nor anything of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Upper bounds of the latency histogram that the ingress counts in, milliseconds; one more bucket is above the last.
LATENCY_BUCKETS_MS: tuple[float, ...] = (
    1,
    2,
    3,
    5,
    7,
    10,
    15,
    20,
    30,
    50,
    70,
    100,
    150,
    200,
    300,
    500,
    700,
    1000,
    2000,
    5000,
    10000,
)


@dataclass(frozen=True, slots=True)
class RequestCount:
    """Requests that ended at one instance in the `window_s` before `at_us`, from the ingress's own access log.

    `histogram` has len(LATENCY_BUCKETS_MS) + 1 counts. `instance_id` 0: no instance answered. `retried` are those of
    `requests` that another instance had been tried for before; an ingress that does not know leaves it at 0. `refused`
    were answered with a status of 400 to 499.
    """

    app_id: int
    instance_id: int
    at_us: int
    window_s: float
    requests: int
    failed: int  # status >= 500
    histogram: list[int]
    retried: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Rows in the order in which their ingress numbers them: those up to the last stored number are not stored again.

    `source` names the file that the numbers are kept in; one that is lost begins anew under another name. An ingress
    that numbers nothing leaves it empty.
    """

    node: str
    rows: list[RequestCount]
    source: str = ""
    first_seq: int = 1


Pool = Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Target:
    """An instance that takes requests. Without a canary under way every target is `stable`."""

    instance_id: int
    address: str
    port: int
    pool: Pool = "stable"


@dataclass(frozen=True, slots=True)
class HostRoute:
    """One host name and the instances behind it; no targets means 503 with a page that says so.

    `canary_percent` of the host's requests (0 to 99) go to the targets of the pool `canary`, the others to those of
    `stable`. It changes only where a rollout moves from phase to phase, never because an instance comes or goes: an
    ingress that has to reload for it does so a few times per rollout. While it is above 0 a pool may be empty for a
    moment; its share then goes to the other pool. At 0 no target is of the pool `canary`.

    An instance that is to take no requests is not listed, healthy or not: the waiting side of a blue_green rollout,
    and the old side that is kept warm after the switch. A switch is therefore nothing but another list of targets.

    `sticky` keeps a client at its instance by a cookie. `requests_per_second` (0: no limit) with `burst` answers 429
    beyond, `max_body_mb` (0: no limit) 413; both are counted at each ingress for itself.
    """

    host: str
    app_id: int
    maintenance: bool = False
    targets: list[Target] = field(default_factory=list)
    canary_percent: int = 0
    sticky: bool = False
    requests_per_second: float = 0.0
    burst: int = 0
    max_body_mb: int = 0


@dataclass(frozen=True, slots=True)
class Routes:
    """Every host name of the platform as of (epoch, index); applied under the same rule as `Assignments`.

    `leaving` are instances that wait for their open requests to end: an ingress reports each as `Drained` when it has
    none there any more.
    """

    cluster_id: str
    epoch: int
    index: int
    hosts: list[HostRoute] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drained:
    """POST /agent/drained: this ingress has no open request at these instances, and sends them no new one."""

    node: str
    instances: list[int]
