"""The console's view of apps and their configuration; sealed values are not shown."""

from apps.models import App, ConfigRevision, Domain
from omni.console import register

register(
    App,
    columns=("name", "org", "status", "desired_state", "instances", "desired_release", "hostname", "updated_at"),
    filters=("status", "desired_state", "runtime"),
    search=("name", "hostname", "description"),
    related=("org",),
)
register(
    ConfigRevision,
    columns=("app", "number", "memory_mb", "cpu", "created_at", "created_by"),
    search=("app__name",),
    related=("app",),
    hidden=("env",),
)
register(Domain, columns=("name", "app", "verified_at", "created_at"), search=("name",), related=("app",))
