"""How an app looks in the API. Rows in, plain data out; no queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from apps import processes, strategy
from apps.models import App
from omni.kernel.clock import rfc3339

_DEFAULT_CHECK = {
    "type": "tcp",
    "path": "/",
    "command": "",
    "interval_s": 5.0,
    "timeout_s": 2.0,
    "healthy_threshold": 1,
    "unhealthy_threshold": 3,
    "start_period_s": 60.0,
}


def health_check_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The whole health check: what was set over the defaults (DECISIONS 19)."""
    return {**_DEFAULT_CHECK, **stored}


def strategy_of(stored: dict[str, Any]) -> dict[str, Any]:
    """The whole strategy: what was set over the defaults."""
    return strategy.whole(strategy.read(stored, progress_deadline_s=settings.CONFIG.timings.progress_deadline_s))


TRAFFIC_DEFAULTS: dict[str, Any] = {"sticky": False, "requests_per_second": 0.0, "burst": 0, "max_body_mb": 0}


def placement_of(stored: dict[str, Any]) -> dict[str, Any]:
    """The whole placement: what was set over the defaults."""
    return {"strategy": "spread", "spread_by": "", "anti_affinity": "preferred", "constraints": [], **stored}


def urls_of(app: App) -> list[str]:
    """Where it answers, at the ingress's own port (DECISIONS 28); a custom domain once it is proven."""
    config = settings.CONFIG
    port = "" if config.ingress.port == 80 else f":{config.ingress.port}"
    return [f"http://{name}{port}" for name in (f"{app.hostname}.{config.domain}", *(app.served_domains or ()))]


def app(row: App, env: dict[str, Any]) -> dict[str, Any]:
    """`row` with its org; `env` as `apps.configuration.shown_env` gives it."""
    base = f"/app/{row.pk}"
    return {
        "id": row.pk,
        "name": row.name,
        "org": row.org.name,
        "org_id": row.org_id,
        "description": row.description,
        "status": row.status,
        "desired_state": row.desired_state,
        "instances": row.instances,
        "processes": processes.shown(row, health_check_of),
        "memory_mb": row.memory_mb,
        "cpu": row.cpu,
        "cpu_limit": row.cpu_limit,
        "singleton": row.singleton,
        "volume_node": row.volume_node or None,
        "env": env,
        "health_check": health_check_of(row.health_check),
        "strategy": strategy_of(row.strategy),
        "restart_policy": row.restart_policy,
        "stop_timeout_s": row.stop_timeout_s,
        "runtime": row.runtime,
        "placement": placement_of(row.placement),
        "traffic": {**TRAFFIC_DEFAULTS, **row.traffic},
        "domains": row.domains,
        "labels": row.labels,
        "maintenance": row.maintenance,
        "freeze": row.freeze or None,
        "urls": urls_of(row),
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "revision": row.revision,
        "links": {
            "self": f"{base}/info",
            "metrics": f"{base}/metrics",
            "instances": f"{base}/instances",
            "logs": f"{base}/logs",
            "releases": f"{base}/releases",
            "builds": f"{base}/builds",
            "deployments": f"{base}/deployments",
            "config": f"{base}/config",
            "volumes": f"{base}/volumes",
            "events": f"/events?app={row.pk}",
        },
    }
