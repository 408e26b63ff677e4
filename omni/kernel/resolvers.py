"""`address` or `address:port` of DNS resolvers, as `domains.resolvers` lists them. Pure."""

from __future__ import annotations

import ipaddress

PORT = 53
MOST = 5


def parse(text: str) -> list[tuple[str, int]]:
    """The resolvers of a comma-separated list. Raises ValueError that names the part that is none."""
    found = [_one(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) > MOST:
        raise ValueError(f"{len(found)} resolvers; at most {MOST} are asked")
    return found


def _one(text: str) -> tuple[str, int]:
    address, port = text, str(PORT)
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"{text} is no IP address (with `:port` or without)") from None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text} has no valid port")
    return address, int(port)
