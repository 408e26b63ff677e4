"""Which nodes there are, and which of them this process belongs to.

Owns a node's names, and how a host of several finds its own: the same config.json lies on all of them, so a node is
known by OMNI_NODE, by the port and address that one process was given, or by an address of this machine. Must not know
what else is configured.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOOPBACK = "loopback"


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster. `id` is `<address>-<port>`, `url` where users and processes of its own host reach it."""

    port: int
    address: str

    @property
    def id(self) -> str:
        return f"{self.address}-{self.port}"

    @property
    def netloc(self) -> str:
        """`host:port` as API.md names a node."""
        return bracketed(self.address) + f":{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Told:
    """What this process was told about itself; `explicit` when it was told so, and does not just share the file."""

    node: str
    port: int
    address: str
    explicit: bool


def bracketed(address: str) -> str:
    """The address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def parse(netloc: str) -> Member:
    """The node named `host:port`. Raises ValueError."""
    host, _, port = netloc.rpartition(":")
    return Member(int(port), host.strip("[]"))


def find(members: Sequence[Member], told: Told, host_of: Callable[[str], str]) -> Member:
    """The node that this process belongs to. Raises LookupError."""
    for member in members:
        if told.node == member.id:
            return member
    named = [m for m in members if m.port == told.port and host_of(m.address) == host_of(told.address)]
    if not told.explicit and len({host_of(member.address) for member in members}) > 1:
        here = [member for member in members if is_local(member.address)]
        named = [member for member in named if member in here] or here or named
    if not named:
        raise LookupError(told.node)
    return named[0]


def is_local(address: str) -> bool:
    """Whether `address` belongs to this machine. (To try by binding is no proof where non-local binds are allowed.)"""
    import psutil

    own = {str(entry.address).partition("%")[0] for entries in psutil.net_if_addrs().values() for entry in entries}
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return any(ip in own or ip.startswith("127.") or ip == "::1" for ip in found)
