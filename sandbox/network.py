"""Keeps app and build users away from loopback services and control ports, by nftables.

Owns one nft table per caller (the name is the caller's) and nothing in anybody else's. Raises Unavailable where
nft cannot be had. Only new connections are looked at, so that answers to the ingress pass without tracking.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Range = tuple[int, int]


class Unavailable(Exception):
    """No packet filter here; the text says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one range of users may reach on this host: `allowed` TCP ports, but never `protected` ones."""

    uids: Range
    allowed: list[Range] = field(default_factory=list)
    protected: list[Range] = field(default_factory=list)


def install(table: str, rules: list[Rule]) -> None:
    """Replace `table` as a whole, atomically; safe to repeat."""
    raise NotImplementedError


def remove(table: str) -> None:
    """Remove `table`; no error when it is not there."""
    raise NotImplementedError
