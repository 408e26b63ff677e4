"""The console's view of nodes, deployments, instances and what they measured; read-only."""

from instances.models import (
    CronEntry,
    CronRun,
    Deployment,
    ExecSession,
    HostSample,
    Instance,
    LatestSample,
    Node,
    Task,
    Volume,
    VolumeRestore,
    VolumeSnapshot,
)
from omni.console import register

register(Node, columns=("name", "address", "status", "draining", "cpu_count", "memory_mb", "status_since"),
         filters=("status",), search=("name",))  # fmt: skip
register(
    Deployment,
    columns=("id", "app", "kind", "status", "release", "desired_instances", "created_by", "created_at", "finished_at"),
    filters=("status", "kind"),
    search=("app__name",),
    related=("app", "release", "release__app"),
)
register(
    Instance,
    columns=("id", "app", "slot", "status", "health", "desired", "node", "release", "restarts", "created_at"),
    filters=("status", "health"),
    search=("app__name",),
    related=("app", "node", "release", "release__app"),
)
register(
    Task,
    columns=("id", "app", "kind", "status", "command", "exit_code", "node_name", "created_by", "created_at"),
    filters=("status", "kind"),
    search=("app__name",),
    related=("app", "release", "release__app"),
    hidden=("env",),
)
register(
    CronEntry,
    columns=("id", "app", "name", "schedule", "time_zone", "overlap", "paused", "next_due_at"),
    filters=("paused", "overlap"),
    search=("app__name", "name"),
    related=("app",),
    hidden=("env",),
)
register(
    CronRun,
    columns=("id", "entry", "due_at", "status", "missed", "task", "created_at"),
    filters=("status",),
    search=("entry__name",),
    related=("entry", "entry__app", "task", "task__app"),
)
register(Volume, columns=("id", "app", "name", "path", "node_name", "status", "size_bytes", "created_at"),
         filters=("status",), search=("name", "app__name"), related=("app",))  # fmt: skip
register(
    VolumeSnapshot,
    columns=(
        "id",
        "app",
        "volume_name",
        "status",
        "consistency",
        "size_bytes",
        "node_name",
        "created_by",
        "created_at",
    ),
    filters=("status", "consistency"),
    search=("volume_name", "app__name"),
    related=("app",),
)
register(
    VolumeRestore,
    columns=("id", "app", "volume_name", "snapshot_number", "status", "node_name", "created_by", "created_at"),
    filters=("status",),
    search=("volume_name", "app__name"),
    related=("app",),
)
register(
    ExecSession,
    columns=("id", "app", "instance_number", "node_name", "status", "exit_code", "created_by", "created_at"),
    filters=("status",),
    search=("app__name", "created_by"),
    related=("app",),
    hidden=("ticket_hash",),
)
register(LatestSample, columns=("instance_id", "app_id", "cpu_percent", "memory_bytes", "restarts", "uptime_s"))
register(HostSample, columns=("node", "at_us", "cpu_percent", "memory_used_bytes", "disk_free_bytes", "load_1m"))
