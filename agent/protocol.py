"""What agents and the control plane say to each other: the messages, as data.

Owns the shape of every message between a host's agent (or its ingress) and the control plane, and nothing else.
Shared with `instances`, which is why it may import neither Django nor anything of ours. Both ends ignore
fields they do not know and fill the ones that are missing, so that neighbouring versions understand each other.

The calls (all JSON, all with the node's bearer token):

=====================================  ==========================================================================
GET  /agent/assignments?index=&wait=   `Assignments` of this node; answers when they changed after `index`
POST /agent/report                     `Report`: changes only, in short batches; an empty one is the heartbeat
POST /agent/logs                       `LogBatches`: telemetry, acknowledged per instance by sequence
POST /agent/samples                    `Samples`: telemetry, dropped when nobody takes it
POST /agent/requests                   `RequestCounts`: telemetry of the ingress
GET  /agent/routes?index=&wait=        `Routes`: what the ingress serves
GET  /agent/packages/<sha256>          the tree of a release, an uncompressed tar
=====================================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

PROTOCOL_VERSION = 1

Desired = Literal["run", "stop", "remove"]
Status = Literal["pending", "placed", "starting", "running", "crashed", "stopping", "stopped", "failed", "lost"]
Health = Literal["healthy", "unhealthy", "starting", "unknown"]
Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How an instance proves that it serves. Defaults: DECISIONS 19. Durations in seconds."""

    type: Literal["http", "tcp", "exec", "process"] = "tcp"
    path: str = "/"
    command: str = ""
    interval_s: float = 5.0
    timeout_s: float = 2.0
    healthy_threshold: int = 1
    unhealthy_threshold: int = 3
    start_period_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ReleaseRef:
    """The immutable thing to run: `package` is the sha256 of its tree, an uncompressed tar of `package_size` bytes."""

    number: int
    version: str
    package: str
    package_size: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """One instance that this node is to run, stop or forget.

    `generation` counts in-place restarts asked for: the agent restarts when it grows.
    Between "desired is no longer run" and SIGTERM pass at least `drain_s`, in which every ingress drops the address,
    and at most `drain_max_s`; in between it ends as soon as `drained` says that no ingress has an open request at the
    instance. `command` is the user's own line (Procfile), run by `/bin/sh -c` in the sandbox.
    A `singleton` runs only under the node's lease: it ends with the lease and starts again under the next one.
    `remove` means: stopped for good, delete the instance's directory once its log is acknowledged.
    """

    id: int
    app_id: int
    app: str
    org: str
    slot: int
    desired: Desired
    release: ReleaseRef
    command: str
    process_type: str = "web"
    generation: int = 0
    runtime: str = "process"
    env: dict[str, str] = field(default_factory=dict)
    memory_mb: int = 512
    cpu: float = 0.5
    cpu_limit: float | None = None
    health_check: HealthCheck = field(default_factory=HealthCheck)
    restart_policy: Literal["always", "on_failure", "never"] = "always"
    stop_timeout_s: float = 10.0
    singleton: bool = False
    drain_s: float = 2.5
    drain_max_s: float = 2.5
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Assignments:
    """A node's whole list as of (epoch, index). An agent never applies an older pair, nor another cluster's list."""

    cluster_id: str
    epoch: int
    index: int
    node: str
    instances: list[Assignment] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Probe:
    """The last health check: when, what came of it, and what it said.

    `status` is what an HTTP check was answered with or the code that an exec check ended with, `snippet` the beginning
    of what it said; both are kept from the first of a row of answers that are otherwise alike.
    """

    at: str
    ok: bool
    detail: str
    status: int | None = None
    snippet: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How the process last ended. `code` and `signal` exclude each other; both None means nobody saw it end."""

    at: str
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    lines: list[str] = field(default_factory=list)  # the last 50 lines it wrote


@dataclass(frozen=True, slots=True)
class Observed:
    """What the agent sees of one instance; sent whole whenever any of it changes.

    `seq` grows with each change of this instance on this agent, so that a late or repeated report is told apart.
    `restarts` counts restarts in place; `crashes` the ends that nobody asked for, once it had been healthy; `detail` is
    one plain sentence for people.
    """

    id: int
    seq: int
    status: Status
    health: Health = "unknown"
    generation: int = 0
    restarts: int = 0
    address: str | None = None  # "host:port"
    started_at: str | None = None  # RFC 3339, of the current process
    handle: dict[str, Any] = field(default_factory=dict)  # e.g. {"pid": 1, "start_time": 2, "cgroup": "..."}
    last_exit: Exit | None = None
    last_probe: Probe | None = None
    next_start_at: str | None = None  # while crashed: when the back-off ends
    detail: str = ""
    draining: bool = False
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What this host can do; sent with the first report and whenever it changes.

    `memory_mb` is this member's share of the host (DECISIONS 18). `isolation`: bubblewrap|none, `limits`:
    cgroup-v1|cgroup-v2|none, `network`: filtered|shared; `notes` say why something cannot be had.
    """

    agent_version: str
    hostname: str
    address: str
    cpu_count: int
    memory_mb: int
    port_range: tuple[int, int]
    runtimes: list[str]
    isolation: str
    limits: str
    network: str
    notes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Changes since the last acknowledged report. `incarnation` is new with each agent process (start time, ns)."""

    node: str
    incarnation: int
    instances: list[Observed] = field(default_factory=list)
    facts: NodeFacts | None = None
    gone: list[int] = field(default_factory=list)  # ids whose directory has been removed
    ingress: bool | None = None


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """`known` are the ids whose report needs no repeating (stored, or refused for good); `unknown` the ids that the
    control plane has never heard of or has purged: the agent stops and removes those."""

    index: int
    epoch: int
    known: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    want_facts: bool = False


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Consecutive lines of one instance: line i has sequence `first_seq + i`.

    Each line is `[at_us, stream, text]`: microseconds since the epoch, 0 stdout or 1 stderr, at most 16 KiB.
    """

    instance_id: int
    app_id: int
    first_seq: int
    lines: list[list[Any]]


@dataclass(frozen=True, slots=True)
class LogBatches:
    node: str
    batches: list[LogBatch]


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """`acked[id]` is the highest sequence stored; the agent goes on from there, also after a gap answer."""

    acked: dict[str, int] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sample:
    """Figures of one instance at one moment. None = nobody measured it. `cpu_percent`: 100 is one core."""

    instance_id: int
    app_id: int
    at_us: int
    cpu_percent: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    network_rx_bytes: int | None
    network_tx_bytes: int | None
    restarts: int
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class HostSample:
    at_us: int
    cpu_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    load_1m: float


@dataclass(frozen=True, slots=True)
class Samples:
    node: str
    samples: list[Sample]
    host: HostSample | None = None


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


Message = TypeVar("Message")


def to_json(message: Any) -> dict[str, Any]:
    """The message as plain JSON types."""
    return dataclasses.asdict(message)


def from_json(kind: type[Message], data: object) -> Message:
    """Read a message of `kind`; unknown fields are ignored, missing ones take their default.

    Raises ValueError (with the path of the field) for a wrong type or a missing field without default.
    """
    return typing.cast(Message, _read(kind, data, kind.__name__))


def _read(kind: Any, data: Any, path: str) -> Any:
    if kind is Any:
        return data
    origin = typing.get_origin(kind)
    if origin is typing.Union or origin is types.UnionType:
        return _read_union(kind, data, path)
    if origin is Literal:
        if data not in typing.get_args(kind):
            raise ValueError(f"{path}: {data!r} is none of {typing.get_args(kind)}")
        return data
    if origin in (list, tuple):
        return _read_sequence(kind, origin, data, path)
    if origin is dict:
        if not isinstance(data, dict):
            raise ValueError(f"{path}: an object is wanted")
        value_kind = typing.get_args(kind)[1]
        return {str(key): _read(value_kind, value, f"{path}.{key}") for key, value in data.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, path)
    return _read_scalar(kind, data, path)


def _read_union(kind: Any, data: Any, path: str) -> Any:
    options = typing.get_args(kind)
    if data is None and type(None) in options:
        return None
    (other,) = [option for option in options if option is not type(None)]
    return _read(other, data, path)


def _read_sequence(kind: Any, origin: Any, data: Any, path: str) -> Any:
    if not isinstance(data, (list, tuple)):
        raise ValueError(f"{path}: a list is wanted")
    args = typing.get_args(kind)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(data) != len(args):
            raise ValueError(f"{path}: {len(args)} items are wanted")
        return tuple(_read(arg, item, f"{path}[{i}]") for i, (arg, item) in enumerate(zip(args, data, strict=True)))
    items = [_read(args[0], item, f"{path}[{i}]") for i, item in enumerate(data)]
    return items if origin is list else tuple(items)


_HINTS: dict[type, dict[str, Any]] = {}


def _read_dataclass(kind: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path}: an object is wanted")
    hints = _HINTS.get(kind)
    if hints is None:
        hints = _HINTS[kind] = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(kind):
        if spec.name in data:
            values[spec.name] = _read(hints[spec.name], data[spec.name], f"{path}.{spec.name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise ValueError(f"{path}.{spec.name}: missing")
    return kind(**values)


def _read_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise ValueError(f"{path}: {kind.__name__} is wanted, not {type(data).__name__}")
    return data
