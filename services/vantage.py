"""Which nodes look at which service. Pure: every member comes to the same answer by itself.

With a number given, the nodes that win a draw by hash: when a node comes or goes, only its own share moves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def chosen(service_id: int, nodes: Sequence[str], count: int | None) -> tuple[str, ...]:
    """`count` of the nodes, or all of them."""
    if count is None or count >= len(nodes):
        return tuple(sorted(nodes))
    return tuple(sorted(sorted(nodes, key=lambda node: _draw(service_id, node))[:count]))


def _draw(service_id: int, node: str) -> bytes:
    return hashlib.blake2b(f"{service_id}:{node}".encode(), digest_size=8).digest()
