"""What a `Launch` becomes as a container. Pure.

Owns limits, privileges, labels, mounts and the port inside. No wish of a user reaches the engine but by the fields of
`Launch`: nothing here can be made to ask for privileges, the host's namespaces, devices or paths of the host.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.runtimes import inside
from agent.runtimes.base import Launch
from agent.runtimes.shell import shell_line

PLATFORM, NODE, INSTANCE, PORT = "omni.platform", "omni.node", "omni.instance", "omni.port"
DIRECT = "omni.direct"  # its own address is where requests go: the host forwards no port to it
# What images that begin as root need to give that up; none of it reaches beyond the container.
_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "KILL", "NET_BIND_SERVICE"]
_CPU_SHARES = 1024
_LOG_FILES = 2
# The engine writes these into every container itself; its init lies in /sbin, of which programs ask ldconfig alone.
_ENGINES_OWN = ("/etc/resolv.conf", "/etc/hosts", "/sbin")
_LDCONFIG = "/sbin/ldconfig"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container is started among. `binds` are (source, target) of the host's system for releases that are
    folders, read-only; `publish` the address at which the host is to forward its port, None where nobody needs that."""

    platform: str
    node: str
    network: str
    log_bytes: int
    uid: int
    host_image: str
    binds: tuple[tuple[str, str], ...] = ()
    publish: str | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """Arguments of the SDK's create_container and create_host_config."""

    name: str
    port: int
    config: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)


def name_of(platform: str, instance_id: int) -> str:
    """One name for an instance: the engine itself refuses a second container of it."""
    return f"{platform}-{instance_id}"


def labels_of(platform: str, node: str | None = None, instance_id: int | None = None) -> list[str]:
    """What to look for containers by."""
    found = [f"{PLATFORM}={platform}"]
    if node is not None:
        found.append(f"{NODE}={node}")
    if instance_id is not None:
        found.append(f"{INSTANCE}={instance_id}")
    return found


def port_of(launch: Launch, image: dict[str, Any]) -> int:
    """Where the program is to listen inside: the lowest TCP port that its image exposes, else the launch's own."""
    exposed = (image.get("Config") or {}).get("ExposedPorts") or {}
    ports = [int(name.split("/")[0]) for name in exposed if name.endswith("/tcp") and name.split("/")[0].isdigit()]
    return min(ports) if launch.image and ports else int(launch.env["PORT"])


def container(launch: Launch, image: dict[str, Any], around: Surroundings) -> Container:
    port = port_of(launch, image)
    made = Container(name_of(around.platform, launch.instance_id), port)
    labels = {
        PLATFORM: around.platform,
        NODE: around.node,
        INSTANCE: str(launch.instance_id),
        PORT: str(port),
        "omni.app": str(launch.app_id),
        DIRECT: "no" if around.publish else "yes",
    }
    made.config.update(
        image=launch.image or around.host_image,
        name=made.name,
        hostname=launch.hostname,
        labels=labels,
        detach=True,
        ports=[port] if around.publish else None,
    )
    made.host.update(
        network_mode=around.network,
        mem_limit=launch.memory_bytes,
        memswap_limit=launch.memory_bytes,
        cpu_shares=max(2, int(_CPU_SHARES * launch.cpu_weight)),
        nano_cpus=int(launch.cpu_limit * 1e9) if launch.cpu_limit else None,
        pids_limit=inside.PIDS,
        init=True,
        security_opt=["no-new-privileges"],
        cap_drop=["ALL"],
        log_config={
            "Type": "json-file",
            "Config": {"max-size": str(around.log_bytes // _LOG_FILES), "max-file": str(_LOG_FILES)},
        },
        port_bindings={port: (around.publish, int(launch.env["PORT"]))} if around.publish else None,
    )
    env = {**launch.env, "PORT": str(port)}
    made.host["binds"] = [f"{volume.source}:{volume.target}:rw" for volume in launch.volumes]
    if launch.image:
        _as_an_image(launch, env, made)
    else:
        _as_a_folder(launch, env, around, made)
    return made


def _as_an_image(launch: Launch, env: dict[str, str], made: Container) -> None:
    made.config["environment"] = env
    made.host["cap_add"] = list(_CAPABILITIES)
    if launch.command:
        made.config["entrypoint"] = ["/bin/sh", "-c", shell_line(launch.command)]


def _as_a_folder(launch: Launch, env: dict[str, str], around: Surroundings, made: Container) -> None:
    """The same sight as in the process runtime's sandbox: the host's system, read-only, and the release at /app."""
    made.config.update(
        environment={**inside.environment(), **env},
        entrypoint=["/bin/sh", "-c", shell_line(launch.command)],
        user=f"{around.uid}:{around.uid}",
        working_dir=inside.TREE,
    )
    system = [f"{source}:{target}:ro" for source, target in around.binds if target not in _ENGINES_OWN]
    if any(target == "/sbin" for _, target in around.binds):
        system.append(f"{_LDCONFIG}:{_LDCONFIG}:ro")
    made.host["binds"] += [*system, f"{launch.tree}:{inside.TREE}:ro", f"{launch.home}:{inside.HOME}:rw"]
    made.host["tmpfs"] = {"/tmp": f"size={inside.TMP_MB}m,mode=1777"}  # noqa: S108 (inside)
