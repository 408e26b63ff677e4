"""The console's view of services, alerts, silences, notices and remedies; read-only."""

from omni.console import register
from services.models import Alert, Notice, RemedyRun, Service, Silence

register(
    Service,
    columns=("name", "state", "state_since", "detail", "severity", "source", "owner", "flapping"),
    filters=("state", "severity", "source"),
    search=("name", "owner"),
    hidden=("remedy_secret",),
)
register(
    Alert,
    columns=("id", "service_name", "severity", "status", "detail", "opened_at", "acknowledged_by", "resolved_at"),
    filters=("status", "severity"),
    search=("service_name",),
)
register(Silence, columns=("id", "pattern", "reason", "starts_at", "ends_at", "created_by"), search=("pattern",))
register(
    Notice,
    columns=("id", "alert", "kind", "channel", "status", "attempts", "next_at", "detail"),
    filters=("status", "channel"),
    related=("alert",),
)
register(
    RemedyRun,
    columns=("id", "service", "type", "status", "detail", "started_at", "finished_at"),
    filters=("status", "type"),
    related=("service",),
)
