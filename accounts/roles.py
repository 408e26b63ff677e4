"""Which scopes each role carries: the whole table of rights, as data. Pure.

A token's `scopes` narrow its role; the platform scopes come only with `platform=True` (operators).
"""

from __future__ import annotations

READ = frozenset({"apps:read", "builds:read", "instances:read", "logs:read", "orgs:read", "events:read", "tasks:read",
                  "volumes:read"})  # fmt: skip
DEVELOP = frozenset({"apps:write", "builds:write", "instances:write", "tasks:write", "volumes:write", "exec"})
ADMINISTER = frozenset({"tokens:read", "tokens:write", "orgs:write"})
PLATFORM = frozenset({"platform:read", "platform:write", "metrics:read", "services:beat"})

ROLE_SCOPES: dict[str, frozenset[str]] = {
    "viewer": READ,
    "developer": READ | DEVELOP | {"tokens:read"},
    "admin": READ | DEVELOP | ADMINISTER,
    "owner": READ | DEVELOP | ADMINISTER | {"orgs:delete"},
}
RANK = {"viewer": 0, "developer": 1, "admin": 2, "owner": 3}
ALL_SCOPES = READ | DEVELOP | ADMINISTER | PLATFORM | {"orgs:delete"}


def scopes_of(role: str, narrowed: list[str] | None = None, *, platform: bool = False) -> frozenset[str]:
    """What a holder of `role` may do; an unknown role may do nothing."""
    allowed = ROLE_SCOPES.get(role, frozenset())
    if platform:
        allowed = allowed | PLATFORM
    return allowed & frozenset(narrowed) if narrowed else allowed
