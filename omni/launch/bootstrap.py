"""The files that a first start makes: folders, keys, the admin's token and password, and the settings of processes.

Owns their names, modes and content. Nothing that exists is overwritten but what is derived from the configuration.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import string
import sys
from pathlib import Path
from typing import Any

from omni.kernel import internal_tokens, keys, secret_files
from omni.kernel.config import Config, Member
from omni.launch import users
from sandbox import identity

_BROKER_COMMANDS_OFF = ("CONFIG", "MODULE", "DEBUG", "REPLICAOF", "SLAVEOF", "SHUTDOWN", "ACL", "MIGRATE", "FUNCTION")
_LETTERS = string.ascii_lowercase + string.digits


def prepare(config: Config, here: list[Member]) -> None:
    """Everything on disk that the processes of this machine expect."""
    _make_folders(config, here)
    secret_files.ensure_keys(config)
    secret_files.read_or_create(config.state / "admin.token", lambda: admin_token(config))
    secret_files.read_or_create(config.state / "admin.password", lambda: admin_password(config))
    for member in here:
        _write_json(config.node_dir(member) / "agent.json", agent_settings(config, member, here))
    _write_json(config.state / "ingress" / "ingress.json", ingress_settings(config, here[0]))
    _write_json(config.state / "worker" / "config.json", worker_settings(config))
    if config.several_hosts:
        _write_certificates(config, here)
    if config.embedded_broker and sys.platform != "win32":
        write_broker_settings(config)


def admin_token(config: Config) -> str:
    """`omni_<8 characters, the prefix>_<43 characters>`, as `accounts` makes them; the same one on several hosts."""
    if config.several_hosts:
        secret = keys.cluster_secret(config)
        return f"omni_{keys.derive(secret, 'admin-prefix').hex()[:8]}_{_text(keys.derive(secret, 'admin-token'))}"
    prefix = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return f"omni_{prefix}_{secrets.token_urlsafe(32)}"


def admin_password(config: Config) -> str:
    """Random, but the same one on each of several hosts."""
    if config.several_hosts:
        return _text(keys.derive(keys.cluster_secret(config), "admin-password"))[:24]
    return secrets.token_urlsafe(18)


def _text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def _write_certificates(config: Config, here: list[Member]) -> None:
    """What proves the processes of this host to members of others. Their names are no member's: Raft refuses them."""
    from consensus import identity  # brings a large library along, which one host does not need

    secret = keys.cluster_secret(config)
    for member in here:
        identity.make(secret, f"agent@{member.id}").write(config.node_dir(member) / "agent-tls")
    identity.make(secret, f"ingress@{here[0].id}").write(config.state / "ingress" / "tls")
    identity.make(secret, f"worker@{here[0].id}").write(config.state / "worker" / "tls")


def _make_folders(config: Config, here: list[Member]) -> None:
    config.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    _close_to_others(config.state, 0o711)
    for name in ("run", "broker", "worker", "ingress"):
        _private(config.state / name)
    _private(Path(config.broker_socket).parent.parent)
    _share_with_worker(config, Path(config.broker_socket).parent)
    (config.state / "instances").mkdir(mode=0o711, exist_ok=True)
    config.artifacts_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for member in here:
        (config.node_dir(member) / "agent").mkdir(mode=0o711, parents=True, exist_ok=True)
    # Apps' own users pass through to their instances, by name and without looking around.
    for folder in (config.state / "instances", *(config.node_dir(member) for member in here)):
        _close_to_others(folder, 0o711)
    _close_to_others(config.artifacts_path, 0o700)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if sys.platform != "win32" and about.st_uid != os.geteuid():
        raise secret_files.UnsafeSecretFile(f"{folder}: belongs to another user; remove it, or choose another --state")
    if sys.platform != "win32" and about.st_mode & 0o077:
        folder.chmod(0o700)


def _close_to_others(folder: Path, mode: int) -> None:
    """No more than `mode`, if the folder is ours to change."""
    about = folder.stat()
    if sys.platform != "win32" and about.st_uid == os.geteuid() and about.st_mode & 0o777 & ~mode:
        folder.chmod(about.st_mode & mode)


def _share_with_worker(config: Config, folder: Path) -> None:
    """As root, the build worker's group may come in; what is made in there belongs to that group."""
    if sys.platform == "win32" or os.geteuid() != 0:
        _private(folder)
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    about, worker = folder.stat(), identity.uid_for("worker", 0, users.base_of(config))
    if about.st_uid != 0:
        raise secret_files.UnsafeSecretFile(f"{folder}: belongs to another user; remove it, or choose another --state")
    if about.st_gid != worker or about.st_mode & 0o7777 != 0o2710:
        os.chown(folder, 0, worker)
        folder.chmod(0o2710)


def agent_settings(config: Config, member: Member, here: list[Member]) -> dict[str, Any]:
    """agent.json: what the agent of one node is told (the contract of `agent`)."""
    secret = keys.cluster_secret(config)
    return {
        "node": member.id,
        "address": member.address,
        "index": config.members.index(member),
        "control_plane": config.control_plane(member),
        "token": internal_tokens.mint("node", member.id, secret),
        "state_dir": str(config.node_dir(member) / "agent"),
        "instances_dir": str(config.state / "instances"),
        "port_range": list(config.port_range(member)),
        "members_on_host": len(here),
        "sample_interval_s": config.timings.sample_interval_s,
        "heartbeat_s": config.timings.heartbeat_s,
        "lease_s": config.timings.node_lease_s,
        "wait_s": config.timings.assignments_wait_s,
        "instance_ports": [
            min(config.port_range(other)[0] for other in here),
            max(config.port_range(other)[1] for other in here),
        ],
        "labels": config.agent.labels,
        "memory_mb": config.agent.memory_mb,
        "protected_ports": protected_ports(config, here),
        "log_max_bytes": config.limits.log_max_bytes,
        "uid_base": users.base_of(config),
        "bwrap_bin": config.binaries.bwrap,
        "docker": config.agent.docker,
        "docker_subnets": config.agent.docker_subnets,
        "swarm_registry": config.agent.swarm_registry,
        "tls": str(config.node_dir(member) / "agent-tls") if config.several_hosts else None,
    }


def protected_ports(config: Config, here: list[Member]) -> list[list[int]]:
    """Ports of the platform that no app may reach, as ranges: nodes, Raft, the door for other hosts, ingress."""
    ports = {config.ingress.port, config.ingress.https_port} - {0}
    for member in here:
        ports |= {member.port, config.raft_port(member)}
        if config.several_hosts:
            ports.add(config.member_port(member))
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ranges


def ingress_settings(config: Config, member: Member) -> dict[str, Any]:
    """ingress.json: what this machine's ingress is told."""
    return {
        "node": member.id,
        "control_plane": config.control_plane(member),
        "token": internal_tokens.mint("node", member.id, keys.cluster_secret(config)),
        "state_dir": str(config.state / "ingress"),
        "address": config.ingress_address,
        "port": config.ingress.port,
        "domain": config.domain,
        "log_level": config.ingress.log_level.lower(),
        "caddy_bin": config.binaries.caddy,
        "tls": str(config.state / "ingress" / "tls") if config.several_hosts else "",
        "https": _https(config),
    }


def _https(config: Config) -> dict[str, Any] | None:
    ingress = config.ingress
    if not ingress.https_port:
        return None
    return {
        "port": ingress.https_port,
        "issuer": ingress.https_issuer,
        "acme_email": ingress.acme_email,
        "acme_directory": ingress.acme_directory,
    }


def worker_settings(config: Config) -> dict[str, Any]:
    """The configuration as a build worker sees it: no database, no secret (it runs near other people's code)."""
    left_out = {"secrets", "database_url", "telemetry_database_url", "broker_url", "alerts", "services"}
    data = config.model_dump(mode="json", exclude=left_out)
    data["artifacts"].pop("s3_secret_access_key")
    data["artifacts"]["s3_access_key_id"] = ""
    data["state_dir"] = str(config.state)
    data["agent"]["uid_base"] = users.base_of(config)
    return data


def write_broker_settings(config: Config) -> None:
    """valkey.conf: a unix socket in a private folder, every change appended to a file, nothing evicted."""
    socket = config.broker_socket
    lines = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "770",  # its folder lets in nobody but us and the build worker
        "dir": _quoted(str(config.state / "broker")),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "set-proc-title": "no",  # it would write over the environment that we know the process by
        "loglevel": "notice",
    }
    text = "".join(f"{name} {value}\n" for name, value in lines.items())
    # The build worker runs near other people's code: it may use the queue, not the server.
    text += "".join(f'rename-command {command} ""\n' for command in _BROKER_COMMANDS_OFF)
    (config.state / "broker" / "valkey.conf").write_text(text, encoding="utf-8")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_json(path: Path, data: dict[str, Any]) -> None:
    secret_files.write(path, json.dumps(data, indent=1, ensure_ascii=False))
