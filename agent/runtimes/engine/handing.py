"""What a container of ours becomes as a Swarm service. Pure.

Owns the translation, field by field, so that the docker runtime's limits and privileges hold here too. What Swarm has
no word for (`no-new-privileges`, the CPU's weight, the swap's limit) is left out, and docs/runtimes.md says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.runtimes.base import Launch
from agent.runtimes.engine.launching import Container

MANAGER = "omni.manager"
STACK = "com.docker.stack.namespace"  # `docker stack services <app>` lists an app's instances
MOVES_AFTER_S = 5.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Handing:
    """How a container is handed over. `manager` is the swarm's id of the node that does it; `pinned`: its files are
    there and nowhere else; `alias`: its app's name in its network."""

    image: str
    manager: str
    network: str
    pinned: bool
    alias: str


def service(made: Container, launch: Launch, handing: Handing) -> dict[str, Any]:
    """Arguments of the SDK's create_service."""
    labels = {**made.config["labels"], MANAGER: handing.manager, STACK: handing.alias}
    return {
        "task_template": _task(made, launch, handing),
        "name": made.name,
        "labels": labels,
        "mode": {"Replicated": {"Replicas": 1}},
        # No virtual address and no mesh: the ingress goes to the task's own node, and IPVS is not needed.
        "endpoint_spec": {
            "Mode": "dnsrr",
            "Ports": [{"Protocol": "tcp", "TargetPort": made.port, "PublishMode": "host"}],
        },
    }


def _task(made: Container, launch: Launch, handing: Handing) -> dict[str, Any]:
    limits: dict[str, Any] = {"MemoryBytes": made.host["mem_limit"], "Pids": made.host["pids_limit"]}
    if made.host["nano_cpus"]:
        limits["NanoCPUs"] = made.host["nano_cpus"]
    log = made.host["log_config"]
    return {
        "ContainerSpec": _container(made, launch, handing),
        "Resources": {"Limits": limits, "Reservations": {"MemoryBytes": made.host["mem_limit"]}},
        # An end is the agent's to deal with. Swarm itself acts where a node is lost or drained, and where a program
        # fails while no agent is there to see it.
        "RestartPolicy": {
            "Condition": "on-failure" if launch.may_move else "none",
            "Delay": int(MOVES_AFTER_S * _NS),
        },
        "Placement": {"Constraints": [f"node.id=={handing.manager}"]} if handing.pinned else {},
        "Networks": [{"Target": handing.network, "Aliases": [handing.alias, launch.hostname]}],
        "LogDriver": {"Name": log["Type"], "Options": log["Config"]},
    }


def _container(made: Container, launch: Launch, handing: Handing) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "Image": handing.image,
        "Labels": made.config["labels"],
        "Hostname": made.config["hostname"],
        "Env": [f"{name}={value}" for name, value in made.config["environment"].items()],
        "Init": True,
        "CapabilityDrop": made.host["cap_drop"],
        "CapabilityAdd": made.host.get("cap_add", []),
        "StopGracePeriod": int(launch.stop_timeout_s * _NS),
        "Mounts": [*map(_bind, made.host["binds"]), *map(_tmpfs, made.host.get("tmpfs", {}).items())],
    }
    given = (("entrypoint", "Command"), ("user", "User"), ("working_dir", "Dir"))
    return spec | {theirs: made.config[ours] for ours, theirs in given if ours in made.config}


def _bind(words: str) -> dict[str, Any]:
    source, target, mode = words.split(":")
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": mode == "ro"}


def _tmpfs(entry: tuple[str, str]) -> dict[str, Any]:
    target, options = entry
    given = dict(option.partition("=")[::2] for option in options.split(","))
    size, mode = int(given["size"].removesuffix("m")) << 20, int(given["mode"], 8)
    return {"Type": "tmpfs", "Target": target, "TmpfsOptions": {"SizeBytes": size, "Mode": mode}}
