"""The console's view of nodes, deployments, instances and what they measured; read-only."""

from instances.models import Deployment, HostSample, Instance, LatestSample, Node
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
register(LatestSample, columns=("instance_id", "app_id", "cpu_percent", "memory_bytes", "restarts", "uptime_s"))
register(HostSample, columns=("node", "at_us", "cpu_percent", "memory_used_bytes", "disk_free_bytes", "load_1m"))
