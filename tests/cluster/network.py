"""What can be done to the cables of a lab: cut, one way or both, lose packets, slow down.

Owns one packet-filter table and one queue discipline in each namespace, and their removal. Addresses are all it knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from omni.testing.hosts import Host

_TABLE = "omni_fault"


def _nft(host: Host, script: str) -> None:
    done = host.run(["nft", "-f", "-"], input=script)
    if done.returncode:
        raise RuntimeError(f"nft on {host.name}: {done.stderr}")


def _table(lines: str) -> str:
    """The whole table anew: faults of one host replace each other."""
    return (
        f"add table inet {_TABLE}\nflush table inet {_TABLE}\n"
        f"table inet {_TABLE} {{\n"
        f" chain in {{ type filter hook input priority -300; policy accept;\n{lines}\n }}\n"
        f" chain out {{ type filter hook output priority -300; policy accept;\n{lines}\n }}\n}}\n"
    )


def cut(host: Host, others: Iterable[str], *, arriving: bool = True, leaving: bool = True) -> None:
    """Drop what `host` exchanges with these addresses, in one or both directions."""
    rules = [f"  ip saddr {other} drop" for other in others if arriving]
    rules += [f"  ip daddr {other} drop" for other in others if leaving]
    _nft(host, _table("\n".join(rules)))


def lose(host: Host, percent: int, but: Iterable[str] = ()) -> None:
    """Lose so many of the packets that arrive or leave, at random; those of `but` are spared."""
    spared = [f"  ip saddr {other} accept\n  ip daddr {other} accept" for other in but]
    _nft(host, _table("\n".join([*spared, f"  oifname != lo numgen random mod 100 < {percent} drop"])))


def slow(host: Host, kbit: int = 512) -> None:
    """A narrow cable: what is sent waits in a queue of up to 400 ms."""
    words = ["tc", "qdisc", "replace", "dev", f"{host.name}-e", "root", "tbf"]
    done = host.run([*words, "rate", f"{kbit}kbit", "burst", "16kb", "latency", "400ms"])
    if done.returncode:
        raise RuntimeError(f"tc on {host.name}: {done.stderr}")


def heal(host: Host) -> None:
    """No fault of ours is left on this host."""
    _nft(host, f"add table inet {_TABLE}\ndelete table inet {_TABLE}\n")
    host.run(["tc", "qdisc", "del", "dev", f"{host.name}-e", "root"])
