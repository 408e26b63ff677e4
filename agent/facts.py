"""What this host can do, told to the control plane in its words.

Owns the translation of what was really tried (`sandbox.probe`, the packet filter) into `NodeFacts`, and the
installation of that filter. One host is shared by several members: each names its share of the memory only.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent.config import Config
from agent.protocol import PROTOCOL_VERSION, NodeFacts
from agent.runtimes.base import Capabilities
from agent.runtimes.engine.networks import BRIDGE_PREFIX
from sandbox import identity, network
from sandbox.network import Bridges, Rule
from sandbox.probe import Facts

log = logging.getLogger(__name__)

AGENT_VERSION = "0.1.0"


def table_name(platform: str) -> str:
    """The packet filter's table; the same for all agents of one host, who install the same rules."""
    return platform.replace("-", "_")


def with_filter(config: Config, facts: Facts) -> Facts:
    """Keep apps away from loopback and control ports (build workers do so for builds); tells whether that worked."""
    if facts.network != "filtered":
        return facts
    if not config.filter_network:
        return replace(facts, network="shared", notes=[*facts.notes, "network filter switched off"])
    apps = identity.uid_range("app", config.uid_base)
    rules = [Rule(apps, [config.all_instance_ports], list(config.protected_ports))]
    try:
        network.install(table_name(config.platform), rules, Bridges(BRIDGE_PREFIX, list(config.protected_ports)))
    except (network.Unavailable, OSError) as error:
        log.warning("no network filter: %s", error)
        return replace(facts, network="shared", notes=[*facts.notes, f"network filter: {error}"])
    return facts


def node_facts(config: Config, facts: Facts, found: Mapping[str, Capabilities]) -> NodeFacts:
    """`found` is what each runtime says of itself."""
    notes = [
        f"{name}: {note}" for name, one in found.items() if one.available and name != "process" for note in one.notes
    ]
    return NodeFacts(
        agent_version=f"{AGENT_VERSION}+{PROTOCOL_VERSION}",
        hostname=socket.gethostname(),
        address=config.address,
        cpu_count=os.cpu_count() or 1,
        memory_mb=config.memory_mb or memory_bytes() // (1024 * 1024) // config.members_on_host,
        port_range=config.port_range,
        runtimes=sorted(name for name, one in found.items() if one.available),
        isolation=facts.isolation,
        limits=facts.limits,
        network=facts.network,
        notes=[*facts.notes, *notes],
        labels=dict(config.labels),
        without={name: "; ".join(one.notes) for name, one in found.items() if not one.available},
    )


def memory_bytes() -> int:
    """What this host has, or what the container around us was given, whichever is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total
