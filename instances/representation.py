"""How instances and nodes look in the API. Rows and `.values()` in, plain data out; no queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from apps import processes
from instances.models import Instance
from instances.states import ENDED, InstanceStatus
from omni.kernel.clock import rfc3339

_FIGURES = ("cpu_percent", "memory_bytes", "memory_limit_bytes", "network_rx_bytes", "network_tx_bytes")


def metrics(row: Instance, figures: Mapping[str, Any] | None, now: dt.datetime) -> dict[str, Any]:
    """`GET …/instances/<id>/metrics` without its series."""
    running = row.status == InstanceStatus.RUNNING
    figures = figures if row.status not in ENDED and figures else {}
    at_us = figures.get("at_us")
    return {
        "instance_id": row.pk,
        "app_id": row.app_id,
        "at": rfc3339(now),
        "measured_at": rfc3339(dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC)) if at_us else None,
        "status": row.status,
        "health": row.health,
        **{name: figures.get(name) for name in _FIGURES},
        "memory_limit_mb": row.memory_mb,
        "restarts": row.restarts,
        "uptime_s": round((now - row.started_at).total_seconds(), 3) if running and row.started_at else None,
    }


def details(row: Instance, volumes: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """`GET …/instances/<id>/details`: everything about one instance, however it ended. `volumes`: what it finds."""
    base = f"/app/{row.app_id}/instances/{row.pk}"
    return {
        "id": row.pk,
        "app_id": row.app_id,
        "app": row.app.name,
        "slot": row.slot,
        "status": row.status,
        "health": row.health,
        "desired": row.desired,
        "version": row.release.version,
        "release": row.release.number,
        "deployment_id": row.deployment_id,
        "process_type": row.process_type,
        "command": row.release.process_types.get(row.process_type),
        "node": row.node.name if row.node else None,
        "address": row.address or None,
        "addresses": [row.address] if row.address else [],
        "memory_mb": row.memory_mb,
        "cpu": row.cpu,
        "cpu_limit": row.release.config.process_settings.get(row.process_type, {}).get(
            "cpu_limit", row.release.config.cpu_limit
        ),
        "reason": row.reason,
        "detail": row.detail,
        "placement": row.placement,
        "pinned_to": row.app.volume_node or None,
        "volumes": [{"name": volume["name"], "path": volume["path"]} for volume in volumes],
        "health_check": processes.check_of(
            row.release.config.process_settings, row.process_type, row.release.config.health_check
        ),
        "health_history": row.history,
        "last_probe": row.last_probe,
        "restarts": row.restarts,
        "generation": row.generation,
        "last_exit": row.last_exit,
        "next_start_at": rfc3339(row.next_start_at),
        "handle": row.handle,
        "started_at": rfc3339(row.started_at),
        "healthy_at": rfc3339(row.healthy_at),
        "created_at": rfc3339(row.created_at),
        "finished_at": rfc3339(row.finished_at),
        "revision": row.revision,
        "links": {"self": f"{base}/details", "metrics": f"{base}/metrics", "logs": f"{base}/logs"},
    }


def node(row: Mapping[str, Any], counts: Mapping[str, Any], overcommit: float) -> dict[str, Any]:
    facts = row["facts"]
    return {
        "id": row["id"],
        "name": row["name"],
        "address": row["address"],
        "status": row["status"],
        "status_since": rfc3339(row["status_since"]),
        "draining": row["draining"],
        "drained": row["draining"] and not counts.get("instances"),
        "ingress": row["ingress"],
        "labels": row["labels"],
        "capacity": {
            "cpu_count": row["cpu_count"],
            "cpu": row["cpu_count"] * overcommit,
            "memory_mb": row["memory_mb"],
        },
        "allocated": {"cpu": round(float(counts.get("weight") or 0), 3), "memory_mb": int(counts.get("memory") or 0)},
        "instances": int(counts.get("instances") or 0),
        "runtimes": facts.get("runtimes", []),
        "runtimes_missing": facts.get("without", {}),
        "isolation": facts.get("isolation"),
        "limits": facts.get("limits"),
        "network": facts.get("network"),
        "notes": facts.get("notes", []),
        "agent_version": facts.get("agent_version"),
        "hostname": facts.get("hostname"),
        "port_range": facts.get("port_range"),
        "created_at": rfc3339(row["created_at"]),
        "revision": row["revision"],
        "links": {"self": f"/nodes/{row['id']}", "drain": f"/nodes/{row['id']}/drain"},
    }
