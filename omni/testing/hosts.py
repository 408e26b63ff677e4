"""Several hosts on this machine: network namespaces on one bridge, each with an address of its own.

Owns the namespaces, the bridge and their removal; knows nothing of what runs in them. Needs root and `ip`. Programs are
run by nsenter and not by `ip netns exec`, which would hide the control groups. Path-based sockets and files are shared
by all hosts; addresses, ports and packet filters are not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_TIMEOUT_S = 20.0


class NoNamespaces(Exception):
    """Network namespaces cannot be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace. `link` is its end of the cable on the bridge's side."""

    name: str
    address: str
    link: str

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv`, run on this host."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--", *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(argv), **options)

    def run(
        self, argv: Sequence[str], timeout_s: float = _TIMEOUT_S, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(argv), capture_output=True, text=True, timeout=timeout_s, check=False, **options
        )

    def cut(self) -> None:
        """Pull the cable."""
        _ip("link", "set", self.link, "down")

    def join(self) -> None:
        """Put it back."""
        _ip("link", "set", self.link, "up")


class Hosts:
    """`with Hosts("trial", 3) as hosts: hosts[0].popen([...])`; this machine itself is `hosts.here` on the bridge.

    `name` is short (8 letters) and begins every namespace and device, so that leftovers can be told by it.
    """

    def __init__(self, name: str, count: int, network: str | None = None) -> None:
        if len(name) > 8:
            raise ValueError("eight letters at most: a device's name has fifteen")
        self.bridge = f"{name}-br"
        self.network = network or f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
        self.here = f"{self.network}.254"
        self.hosts = [
            Host(f"{name}-{number}", f"{self.network}.{number}", f"{name}-{number}-v") for number in range(1, count + 1)
        ]

    def __getitem__(self, number: int) -> Host:
        return self.hosts[number]

    def __len__(self) -> int:
        return len(self.hosts)

    def __enter__(self) -> Hosts:
        refuse_where_forbidden()
        self.remove()
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.remove()

    def _make(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.here}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        for host in self.hosts:
            inside = f"{host.name}-e"
            _ip("netns", "add", host.name)
            _ip("link", "add", host.link, "type", "veth", "peer", "name", inside)
            _ip("link", "set", host.link, "master", self.bridge)
            _ip("link", "set", host.link, "up")
            _ip("link", "set", inside, "netns", host.name)
            for words in (
                ("addr", "add", f"{host.address}/24", "dev", inside),
                ("link", "set", inside, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", host.name, *words)

    def remove(self) -> None:
        """Everything of this name; what is not there is no mistake."""
        for host in self.hosts:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", host.name)
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("link", "del", host.link)
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self.bridge)


def refuse_where_forbidden() -> None:
    """Raises NoNamespaces."""
    missing = [name for name in ("ip", "nsenter") if shutil.which(name, path=_path()) is None]
    if missing:
        raise NoNamespaces(f"{', '.join(missing)} is not installed (Debian: apt-get install iproute2 util-linux)")
    if os.geteuid() != 0:
        raise NoNamespaces("network namespaces need root")
    trial = f"omni-t{os.getpid()}"
    try:
        _ip("netns", "add", trial)
        _ip("netns", "del", trial)
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(f"this kernel or container forbids network namespaces: {error.stderr.strip()}") from error


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _ip(*words: str) -> None:
    environment: Mapping[str, str] = {**os.environ, "PATH": _path()}
    subprocess.run(["ip", *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, env=environment)
