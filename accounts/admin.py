"""The console's view of orgs, members and tokens."""

from accounts.models import ApiToken, EventHook, Membership, Org
from omni.console import register

register(Org, columns=("name", "max_apps", "max_instances", "max_memory_mb", "created_at"), search=("name",))
register(Membership, columns=("user", "org", "role", "created_at"), filters=("role",), related=("user", "org"))
register(
    ApiToken,
    columns=("name", "prefix", "org", "role", "platform", "created_at", "expires_at", "revoked_at"),
    filters=("role", "platform"),
    search=("name", "prefix"),
    related=("org",),
    hidden=("digest",),
)
register(
    EventHook,
    columns=("url", "org", "active", "why_inactive", "created_at"),
    filters=("active",),
    related=("org",),
    hidden=("secret",),
)
