"""The console's ways: which pages there are, for whom, and which one is open. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from omni.kernel.context import Actor


@dataclass(frozen=True, slots=True)
class Way:
    title: str
    address: str
    icon: str
    scope: str
    group: str = ""


WAYS = (
    Way("Overview", "/admin/", "overview", "apps:read"),
    Way("Apps", "/admin/app/", "apps", "apps:read"),
    Way("Services", "/admin/service/", "services", "platform:read"),
    Way("Alerts", "/admin/alerts/", "alerts", "platform:read"),
    Way("Nodes", "/admin/nodes/", "nodes", "platform:read", "Platform"),
    Way("Cluster", "/admin/cluster/", "cluster", "platform:read", "Platform"),
    Way("Events", "/admin/events/", "events", "events:read", "Platform"),
    Way("Orgs", "/admin/orgs/", "people", "orgs:read", "People"),
    Way("Tokens", "/admin/tokens/", "tokens", "tokens:read", "People"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    title: str
    address: str
    icon: str
    open: bool


def ways(actor: Actor, path: str) -> list[tuple[str, list[Shown]]]:
    """In groups, as the side bar shows them."""
    groups: dict[str, list[Shown]] = {}
    for way in WAYS:
        if way.scope in actor.scopes:
            is_open = path == way.address or (way.address != "/admin/" and path.startswith(way.address))
            groups.setdefault(way.group, []).append(Shown(way.title, way.address, way.icon, is_open))
    if actor.platform:
        tables = path.startswith("/admin/tables/")
        groups.setdefault("Records", []).append(Shown("All tables", "/admin/tables/", "tables", tables))
    return list(groups.items())
