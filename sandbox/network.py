"""Keeps app and build users away from loopback services and control ports, by nftables.

Owns one nft table per caller (the name is the caller's) and nothing in anybody else's. Raises Unavailable where
nft cannot be had. Programs share the host's network, so a rule looks at the user who opens a connection. For TCP
only the opening packet is judged: answers to the ingress pass without connection tracking.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

Range = tuple[int, int]

_TABLE = re.compile(r"[a-z][a-z0-9_]{0,60}\Z")
_TIMEOUT_S = 10
_RESOLV_CONF = Path("/etc/resolv.conf")


class Unavailable(Exception):
    """No packet filter here; the text says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one range of users may reach on this host: `allowed` TCP ports, but never `protected` ones."""

    uids: Range
    allowed: list[Range] = field(default_factory=list)
    protected: list[Range] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bridges:
    """Containers reach this host by bridges whose names begin with `prefix`: what they are kept from there."""

    prefix: str
    protected: list[Range]


def install(table: str, rules: list[Rule], bridges: Bridges | None = None) -> None:
    """Replace `table` as a whole, atomically; safe to repeat."""
    _nft(ruleset(_checked(table), rules, _resolvers(), bridges))


def remove(table: str) -> None:
    """Remove `table`; no error when it is not there."""
    _nft(f"table inet {_checked(table)}\ndelete table inet {table}\n")


def trial() -> None:
    """Install and remove a table of our own; raises Unavailable with the reason when that is refused."""
    table = f"omni_trial_{os.getpid()}_{time.monotonic_ns()}"
    try:
        install(table, [Rule((61000, 61001), [(20000, 20001)], [(8000, 8000)])])
    finally:
        remove(table)


def ruleset(table: str, rules: list[Rule], resolvers: list[str], bridges: Bridges | None = None) -> str:
    """The nft script (pure). Declaring, deleting and making the table in one transaction replaces it atomically."""
    lines = [f"table inet {table}", f"delete table inet {table}", f"table inet {table} {{"]
    lines += ["  chain output {", "    type filter hook output priority filter; policy accept;"]
    lines += [f"    meta skuid {_ports([rule.uids])} jump {_chain(rule)}" for rule in rules]
    lines += ["  }"]
    for rule in rules:
        lines += [f"  chain {_chain(rule)} {{", *_chain_rules(rule, resolvers), "  }"]
    if bridges is not None:
        lines += _bridge_chains(bridges)
    return "\n".join([*lines, "}", ""])


def _chain_rules(rule: Rule, resolvers: list[str]) -> list[str]:
    lines = []
    for address in resolvers:
        family = "ip6" if ":" in address else "ip"
        lines.append(f"    {family} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept")
    # Cloud metadata hands out the host's credentials.
    lines += ["    ip daddr 169.254.0.0/16 reject", "    ip6 daddr fd00:ec2::254 reject"]
    lines += ['    oifname != "lo" accept']
    # The host's own outside addresses leave by "lo" as well: they are covered by what follows.
    if rule.protected:
        lines.append(f"    tcp flags & (syn | ack) == syn tcp dport {_ports(rule.protected)} reject with tcp reset")
    if rule.allowed:
        lines.append(f"    tcp dport {_ports(rule.allowed)} accept")
    lines += ["    tcp flags & (syn | ack) == syn reject with tcp reset", "    meta l4proto != tcp reject"]
    return lines


def _bridge_chains(bridges: Bridges) -> list[str]:
    coming = f'iifname "{bridges.prefix}*"'
    lines = ["  chain containers_in {", "    type filter hook input priority filter; policy accept;"]
    if bridges.protected:
        opening = f"tcp flags & (syn | ack) == syn tcp dport {_ports(bridges.protected)}"
        lines.append(f"    {coming} {opening} reject with tcp reset")
    lines += ["  }", "  chain containers_out {", "    type filter hook forward priority filter; policy accept;"]
    # Cloud metadata, here too.
    return [*lines, f"    {coming} ip daddr 169.254.0.0/16 reject", "  }"]


def _chain(rule: Rule) -> str:
    return f"users_{rule.uids[0]}_{rule.uids[1]}"


def _ports(ranges: list[Range]) -> str:
    for low, high in ranges:
        if not 0 <= low <= high:
            raise ValueError(f"{low}-{high} is no range")
    merged: list[Range] = []
    for low, high in sorted(ranges):
        # nft refuses sets whose intervals overlap.
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return "{ " + ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in merged) + " }"


def _resolvers() -> list[str]:
    try:
        text = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for words in (line.split() for line in text.splitlines()):
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(ipaddress.ip_address(words[1].partition("%")[0])))
            except ValueError:
                continue
    return found


def _checked(table: str) -> str:
    if not _TABLE.match(table):
        raise ValueError(f"{table!r} is no name for an nft table")
    return table


def _nft(script: str) -> None:
    nft = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if nft is None:
        raise Unavailable("nft is not installed")
    if os.geteuid() != 0:
        raise Unavailable("only root may filter by user")
    try:
        done = subprocess.run(
            [nft, "-f", "-"], input=script, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"nft did not run: {error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise Unavailable(f"nft refused: {reason}")
