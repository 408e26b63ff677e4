"""The DNS names that stand for instances and pages between the resolver, Caddy and its access log.

Owns encoding and decoding them, and nothing else; pure. A name carries all there is to know, instance, app and address,
so that an A query needs no table (it still answers for an instance that left the table a moment ago) and a line of
the access log names the instance that served, also when another one has its port by now.

    i<instance>-<app>.<address>.omni.      an instance; the address is 8 (IPv4) or 32 (IPv6) hex digits
    p<app>.<address>.omni.                 the page listener, on behalf of an app (0: no such host)
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

ZONE = "omni"
POOLS = frozenset({"stable", "canary"})
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAME = re.compile(r"(?:i(?P<instance>\d{1,19})-|p)(?P<app>\d{1,19})\.(?P<ip>[0-9a-f]{8}|[0-9a-f]{32})\.omni\.?")


@dataclass(frozen=True, slots=True)
class Label:
    """What a name says; `instance_id` 0 is the page listener."""

    instance_id: int
    app_id: int
    ip: IPAddress


def parts(label: Label) -> tuple[bytes, bytes]:
    """The two labels before the zone."""
    head = f"i{label.instance_id}-{label.app_id}" if label.instance_id else f"p{label.app_id}"
    return head.encode(), label.ip.packed.hex().encode()


def encode(label: Label) -> str:
    return ".".join([*(part.decode() for part in parts(label)), ZONE, ""])


def decode(name: str) -> Label | None:
    """The label behind `name` (with or without the last dot, any case), or None when it is not one of ours."""
    match = _NAME.fullmatch(name.lower())
    if match is None:
        return None
    packed = bytes.fromhex(match["ip"])
    ip: IPAddress = ipaddress.IPv4Address(packed) if len(packed) == 4 else ipaddress.IPv6Address(packed)
    return Label(int(match["instance"] or 0), int(match["app"]), ip)
