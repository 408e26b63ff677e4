"""Which addresses a call to the outside may go to: service checks, webhooks, mail.

Owns the rule and its defaults, as a pure value. Whoever calls resolves the name once, asks here about each address,
and connects to the very address that was allowed: a name that answers differently the second time (DNS rebinding)
gains nothing. Must open no connection and read no configuration.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds hand out credentials to whoever asks. No setting opens these.
METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128")
)
# Closed unless allowed by name: this host itself, the link, and what is no single host.
CLOSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
        "::/128", "::1/128", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """The policy does not let a call go there. The text names the address and the rule."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """`deny` beats `allow`, `allow` beats the defaults, metadata addresses beat all."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    @classmethod
    def of(cls, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AddressPolicy:
        """From networks as text, `10.0.0.0/8` or one address. Raises ValueError."""
        return cls(tuple(map(network, allow)), tuple(map(network, deny)))

    def why_not(self, address: str) -> str:
        """Why no call may go to `address`; empty when it may. Raises ValueError for what is no address."""
        one = plain(ipaddress.ip_address(address.partition("%")[0]))
        if any(one in closed for closed in METADATA):
            return f"{one} is a metadata address"
        if any(one in denied for denied in self.deny):
            return f"{one} is denied by outgoing.deny"
        if any(one in allowed for allowed in self.allow):
            return ""
        if any(one in closed for closed in CLOSED):
            return f"{one} is {_kind(one)}; an operator can allow it by outgoing.allow"
        return ""

    def first_allowed(self, host: str, addresses: Iterable[str]) -> str:
        """The first of a host's addresses that a call may go to. Raises Refused when there is none."""
        reasons = []
        for address in addresses:
            reason = self.why_not(address)
            if not reason:
                return address
            reasons.append(reason)
        raise Refused(f"{host}: {reasons[0]}" if reasons else f"{host} has no address")


def network(text: str) -> Network:
    """Raises ValueError for what is neither a network nor an address."""
    found = ipaddress.ip_network(text.strip(), strict=False)
    mapped = plain(found.network_address)
    if mapped.version != found.version:  # ::ffff:127.0.0.0/104 means 127.0.0.0/8
        return ipaddress.ip_network(f"{mapped}/{max(0, found.prefixlen - 96)}", strict=False)
    return found


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries (mapped, 6to4, NAT64): a call there ends at that one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _kind(address: Address) -> str:
    if address.is_loopback:
        return "this host itself"
    return "on the local link" if address.is_link_local else "no address of a single host"
