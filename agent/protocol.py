"""What agents and the control plane say to each other: the messages, as data.

Owns the shape of every message between a host's agent and the control plane, and nothing else; those of its ingress
are in `agent.routing`, how any of them becomes JSON in `agent.plain`.
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
GET  /agent/packages/<sha256>          the tree of a release, an uncompressed tar; the archive of a snapshot
PUT  /agent/snapshots/<id>             the archive of a volume's snapshot, a tar.gz in chunks
GET  /agent/exec/<id>                  a WebSocket: input and output of a command (`agent.sessions`)
=====================================  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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
    """The immutable thing to run: `package` is the sha256 of an uncompressed tar of `package_size` bytes, its tree or,
    for `kind` image, what `docker save` makes of one image without a name. An empty command is then the image's own."""

    number: int
    version: str
    package: str
    package_size: int
    kind: Literal["tree", "image"] = "tree"


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """A volume that an instance finds at `path`; `key` names its directory on the node."""

    key: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class VolumeOrder:
    """What is to become of a volume on this node. One that is in no list stays: only `keep` False destroys data."""

    key: str
    keep: bool = True


@dataclass(frozen=True, slots=True)
class VolumeSeen:
    """`size_bytes` None: it could not be measured. `removed`: nothing of it is left on this node."""

    key: str
    size_bytes: int | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class VolumeJob:
    """A snapshot of the volume `key` that is to be made here, or restored into it; until no list names it any more.

    A snapshot may have `max_bytes` of content. A restore takes the archive `sha256` of `size` bytes, in which are
    `content_bytes`; `root` is whose the volume was and its mode (`uid`, `gid`, `mode`). With `still` nothing
    may use the volume from the beginning to the end.
    """

    kind: Literal["snapshot", "restore"]
    id: int
    key: str
    still: bool = True
    max_bytes: int = 0
    sha256: str = ""
    size: int = 0
    content_bytes: int = 0
    root: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeJobSeen:
    """How far it is, and with `ended` how it ended: `reason` is empty when it succeeded, else a word for what failed.

    `skipped` counts what is no file, folder or link (sockets, pipes) and files that went while they were read.
    """

    kind: Literal["snapshot", "restore"]
    id: int
    ended: bool = False
    reason: str = ""
    detail: str = ""
    done_bytes: int = 0
    sha256: str = ""
    size: int = 0
    content_bytes: int = 0
    files: int = 0
    skipped: int = 0
    root: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionOrder:
    """A command to run in an instance for somebody who waits at a member, reached at one of `urls`.

    `running`: the control plane was told that it runs. It ends after `idle_s` without a byte
    either way, and after `max_s`.
    """

    id: int
    instance_id: int
    argv: list[str]
    urls: list[str]
    tty: bool = False
    columns: int = 80
    rows: int = 24
    idle_s: float = 600.0
    max_s: float = 3600.0
    running: bool = False


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """It runs, or with `ended` it ran: `code` None means that nobody knows; `reason` is a word for why it ended."""

    id: int
    ended: bool = False
    code: int | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One instance that this node is to run, stop or forget.

    `generation` counts in-place restarts asked for: the agent restarts when it grows.
    Between "desired is no longer run" and SIGTERM pass at least `drain_s`, in which every ingress drops the address,
    and at most `drain_max_s`; in between it ends as soon as `drained` says that no ingress has an open request at the
    instance. `command` is the user's own line (Procfile), run by `/bin/sh -c` in the sandbox.
    A `singleton` runs only under the node's lease: it ends with the lease and starts again under the next one.
    What is to run `once` is never started a second time, whatever ended it: not after a reboot, nor on request.
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
    once: bool = False
    volumes: list[VolumeMount] = field(default_factory=list)
    request_id: str = ""  # of whoever wished for its deployment


@dataclass(frozen=True, slots=True)
class Assignments:
    """A node's whole list as of (epoch, index). An agent never applies an older pair, nor another cluster's list."""

    cluster_id: str
    epoch: int
    index: int
    node: str
    instances: list[Assignment] = field(default_factory=list)
    volumes: list[VolumeOrder] = field(default_factory=list)
    volume_jobs: list[VolumeJob] = field(default_factory=list)
    sessions: list[SessionOrder] = field(default_factory=list)


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
    cgroup-v1|cgroup-v2|none, `network`: filtered|shared, all three of the process runtime; `notes` say why something
    cannot be had. `without`: the runtimes that this node does not have, each with the reason.
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
    without: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """Changes since the last acknowledged report. `incarnation` is new with each agent process (start time, ns)."""

    node: str
    incarnation: int
    instances: list[Observed] = field(default_factory=list)
    facts: NodeFacts | None = None
    gone: list[int] = field(default_factory=list)  # ids whose directory has been removed
    ingress: bool | None = None
    volumes: list[VolumeSeen] = field(default_factory=list)
    volume_jobs: list[VolumeJobSeen] = field(default_factory=list)
    sessions: list[SessionSeen] = field(default_factory=list)


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
