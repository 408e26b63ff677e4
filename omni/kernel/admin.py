"""The console's view of the event list."""

from omni.console import register
from omni.kernel.models import Event

register(
    Event,
    columns=("position", "at", "kind", "object_type", "object_id", "actor", "cause", "member"),
    filters=("object_type",),
    search=("kind", "actor", "request_id"),
)
