"""What a node is to run, as `agent.protocol.Assignments` says it.

Owns the translation from rows; the one place where an environment is unsealed. Reads only.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, cast

from apps import processes
from apps.models import ConfigRevision
from instances import draining
from instances.models import Instance
from instances.states import ENDED
from instances.volumes import services as volumes
from omni.kernel.seal import SealBroken, unseal
from releases.contract import IMAGE_BUILDERS

_log = logging.getLogger("omni.assignments")
_TASK_CHECK = {"type": "process", "start_period_s": 0.0}  # it runs as soon as its process does
_FIELDS = (
    "id", "app_id", "slot", "desired", "status", "generation",
    "observed_generation", "drained_by", "process_type", "memory_mb", "cpu", "app__name",
    "app__singleton", "app__volume_node",
    "app__org__name", "app__runtime", "release__number", "release__version", "release__package_id",
    "release__package__size", "release__build__builder", "release__process_types", "release__config_id",
    "release__config__cpu_limit",
    "release__config__health_check", "release__config__restart_policy", "release__config__stop_timeout_s",
    "release__config__process_settings", "task_id", "task__command", "task__env", "request_id",
)  # fmt: skip


def of_node(node: str) -> list[dict[str, Any]]:
    """Every instance that the node runs, is to run, or still holds a directory of; by id."""
    rows = list(Instance.objects.filter(node__name=node, on_node=True).order_by("id").values(*_FIELDS))
    ingresses = draining.ingresses() if any(draining.leaves(row) for row in rows) else frozenset()
    holding = {row["app_id"] for row in rows if row["app__volume_node"]}
    mounts = volumes.mounts(holding, node) if holding else {}
    return [_assignment(row, ingresses, mounts.get(row["app_id"], [])) for row in rows]


def _assignment(row: dict[str, Any], ingresses: frozenset[str], mounts: list[dict[str, str]]) -> dict[str, Any]:
    """One entry. When nobody can open the environment, one that the agent cannot read: it leaves the instance as it is.

    So an app whose master key was lost keeps what runs, starts nothing without its settings, and stops no other app.
    """
    ended = row["status"] in ENDED
    try:
        env = _environment(row["release__config_id"]) if row["desired"] == "run" and not ended else {}
        if row["task__env"] and row["desired"] == "run" and not ended:
            env = {**env, **cast(dict[str, str], unseal(row["task__env"]))}
    except SealBroken as broken:
        _log.error("instance %d of %s: %s", row["id"], row["app__name"], broken)
        return {"id": row["id"], "unreadable": "environment"}
    return {
        "id": row["id"],
        "app_id": row["app_id"],
        "app": row["app__name"],
        "org": row["app__org__name"],
        "slot": row["slot"],
        "desired": "remove" if ended else row["desired"],
        "release": {
            "number": row["release__number"],
            "version": row["release__version"],
            "package": row["release__package_id"],
            "package_size": row["release__package__size"],
            "kind": "image" if row["release__build__builder"] in IMAGE_BUILDERS else "tree",
        },
        "command": row["task__command"] or row["release__process_types"].get(row["process_type"], ""),
        "process_type": row["process_type"],
        "generation": row["generation"],
        "runtime": row["app__runtime"],
        "singleton": row["app__singleton"] and row["task_id"] is None,
        "env": env,
        "volumes": mounts,
        "memory_mb": row["memory_mb"],
        "cpu": row["cpu"],
        "request_id": row["request_id"],
        **_own(row),
        **draining.terms(row, ingresses),
    }


def _own(row: dict[str, Any]) -> dict[str, Any]:
    """What the process type has of its own, else what the app's configuration says."""
    settings, name = row["release__config__process_settings"], row["process_type"]
    of_app = {key: row[f"release__config__{key}"] for key in ("cpu_limit", "restart_policy", "stop_timeout_s")}
    own = settings.get(name, {})
    found = {key: own.get(key, value) for key, value in of_app.items()}
    if row["task_id"] is not None:
        return {**of_app, "restart_policy": "never", "once": True, "health_check": _TASK_CHECK}
    return {**found, "health_check": processes.check_of(settings, name, row["release__config__health_check"])}


@lru_cache(maxsize=512)
def _environment(config_id: int) -> dict[str, str]:
    """Configurations never change, so one that was opened stays right."""
    return cast(dict[str, str], unseal(ConfigRevision.objects.values_list("env", flat=True).get(pk=config_id)))
