"""The agent's own configuration: one JSON file, read once into a frozen value.

Owns the file's shape and its defaults; reads no environment. Keys it does not know are left alone, so that a newer
launcher and an older agent understand each other.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path

from agent.plain import from_json

INSTANCE_PORTS_PER_MEMBER = 500


class BadConfig(Exception):
    """The text names the file, the key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Config:
    """See docs of `agent.json`.

    `instance_ports`: the ports of every agent of this host, for the packet filter; by default worked out from
    `port_range`, `index` and `members_on_host`. `memory_mb`: what this node offers, by default its share of the host.
    `docker`: the URL of an engine, "auto" (the first of the usual sockets that is there) or "off"; `docker_subnets`:
    what the networks of apps are cut out of; `swarm_registry`: the registry that all nodes of its swarm reach, "" for
    none. `tls`: the folder of what proves this agent to members of other hosts, whose URLs begin with https.
    """

    node: str
    address: str
    control_plane: list[str]
    token: str
    state_dir: str
    instances_dir: str
    index: int = 0
    port_range: tuple[int, int] = (20000, 20499)
    instance_ports: tuple[int, int] | None = None
    members_on_host: int = 1
    sample_interval_s: float = 5.0
    heartbeat_s: float = 1.0
    lease_s: float = 5.0
    wait_s: float = 25.0
    labels: dict[str, str] = field(default_factory=dict)
    protected_ports: list[tuple[int, int]] = field(default_factory=list)
    log_max_bytes: int = 50 * 1024 * 1024
    log_lines_per_s: float = 3000.0
    log_burst_lines: int = 60_000
    uid_base: int = 61000
    memory_mb: int | None = None
    bwrap_bin: str | None = None
    tls: str | None = None
    filter_network: bool = True
    docker: str = "off"
    docker_subnets: str = "10.208.0.0/12"
    swarm_registry: str = ""

    @property
    def platform(self) -> str:
        return platform_of(Path(self.instances_dir))

    @property
    def all_instance_ports(self) -> tuple[int, int]:
        if self.instance_ports is not None:
            return self.instance_ports
        first = self.port_range[0] - self.index * INSTANCE_PORTS_PER_MEMBER
        members = max(self.members_on_host, self.index + 1)
        return max(first, 1024), min(first + members * INSTANCE_PORTS_PER_MEMBER - 1, 65535)


def platform_of(instances_dir: Path) -> str:
    """A short name for this installation on this host: all of its agents share the directory, nobody else does."""
    return "omni-" + hashlib.sha256(str(instances_dir.resolve()).encode()).hexdigest()[:10]


def load(path: Path) -> Config:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{path}: {error}") from error
    try:
        config = from_json(Config, data)
    except ValueError as error:
        raise BadConfig(f"{path}: {error}") from error
    return _checked(path, config)


def _checked(path: Path, config: Config) -> Config:
    low, high = config.port_range
    rules: list[tuple[str, bool, str]] = [
        ("control_plane", bool(config.control_plane), "at least one address is wanted"),
        ("tls", bool(config.tls) or not any(u.startswith("https://") for u in config.control_plane), "https needs it"),
        ("control_plane", all(u.startswith(("http://", "https://")) for u in config.control_plane), "http(s) URLs"),
        ("port_range", 1024 <= low <= high <= 65535, "[low, high] within 1024..65535 is wanted"),
        ("members_on_host", config.members_on_host >= 1, "at least 1 is wanted"),
        ("heartbeat_s", config.heartbeat_s > 0, "a positive number is wanted"),
        ("lease_s", config.lease_s > config.heartbeat_s, "more than heartbeat_s is wanted"),
        ("sample_interval_s", config.sample_interval_s > 0, "a positive number is wanted"),
        ("log_max_bytes", config.log_max_bytes >= 1024 * 1024, "at least 1 MiB is wanted"),
        ("docker", _is_engine(config.docker), "unix://PATH, tcp://HOST:PORT, auto or off is wanted"),
        ("docker_subnets", _is_pool(config.docker_subnets), "an IPv4 network of /8 to /23 is wanted"),
        ("log_lines_per_s", config.log_lines_per_s > 0, "a positive number is wanted"),
    ]
    for key, good, wanted in rules:
        if not good:
            raise BadConfig(f"{path}: {key} is {getattr(config, key)!r}: {wanted}")
    return config


def _is_engine(text: str) -> bool:
    return text in ("auto", "off") or text.startswith(("unix:///", "tcp://"))


def _is_pool(text: str) -> bool:
    try:
        return 8 <= ipaddress.IPv4Network(text).prefixlen <= 23
    except ValueError:
        return False
