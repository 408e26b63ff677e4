"""Podman's service as a container engine of our own for tests: one that speaks the Docker API on a socket.

Owns what is Podman's way of it; the rest is `docker_engine`'s. Needs root and Debian's packages podman, netavark,
aardvark-dns and catatonit beside those of docker.io. Never touches the host's own Podman.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from agent.runtimes.engine.networks import BRIDGE_PREFIX
from omni.testing.docker_engine import DockerEngine

PACKAGES = "podman netavark aardvark-dns catatonit"
_NETAVARK = Path("/usr/lib/podman/netavark")
# Of the host's own settings none count. Without systemd; crun refuses hosts with both kinds of cgroups; of limits
# Podman 4.3 confuses the soft with the hard one.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=8192:8192"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
"""


def missing() -> str:
    """Why no Podman can be had here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can run an engine"
    absent = [name for name in ("podman", "docker", "runc", "catatonit") if shutil.which(name) is None]
    absent += [] if _NETAVARK.exists() else ["netavark"]
    return f"{', '.join(absent)} not installed (Debian: apt-get install {PACKAGES})" if absent else ""


class PodmanEngine(DockerEngine):
    """What containers run in lives on without the service: `kill` ends nothing but that. Registries that are to be
    asked without TLS are named in `insecure` before the start."""

    insecure: tuple[str, ...] = ()

    def _command(self, options: tuple[str, ...]) -> list[str]:
        below = {"--root": "data", "--runroot": "run", "--tmpdir": "note", "--network-config-dir": "net"}
        words = [word for option, name in below.items() for word in (option, f"{self.folder}/{name}")]
        return ["podman", *words, "system", "service", "--time", "0", self.url]

    def _surroundings(self) -> dict[str, str]:
        settings, registries = self.folder / "containers.conf", self.folder / "registries.conf"
        settings.write_text(_CONTAINERS)
        plain = [f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in self.insecure]
        registries.write_text("\n".join(['unqualified-search-registries = ["docker.io"]\n', *plain]))
        return {**os.environ, "CONTAINERS_CONF": str(settings), "CONTAINERS_REGISTRIES_CONF": str(registries)}

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        (self.folder / "pid").write_text(str(process.pid))

    def stop(self, *, keep_images: bool = False) -> None:
        super().stop(keep_images=keep_images)
        for entry in Path("/proc").iterdir():  # who waited beside a command, for five minutes after its end
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"/conmon") and any(word.startswith(bytes(self.folder)) for word in words):
                    os.kill(int(entry.name), signal.SIGKILL)
        _forget_rules()


def _forget_rules() -> None:
    """Netavark leaves empty chains of forwarded ports, and rules of bridges that are gone: ours begin with omd."""
    for rule in _iptables("nat", "-S").splitlines():
        if rule.startswith("-N NETAVARK-DN-"):
            _iptables("nat", "-X", rule.split()[1])  # one in use is refused
    for rule in _iptables("filter", "-S").splitlines():
        bridge = next((word for word in rule.split() if word.startswith(BRIDGE_PREFIX)), "")
        if rule.startswith("-A NETAVARK_") and bridge and not Path("/sys/class/net", bridge).exists():
            _iptables("filter", "-D", *rule.split()[1:])


def _iptables(table: str, *words: str) -> str:
    if shutil.which("iptables") is None:
        return ""
    argv = ["iptables", "-w", "-t", table, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout
