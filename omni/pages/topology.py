"""Where the members stand on the small map of the cluster. Pure: members in, coordinates and words out.

The leader is in the middle of its followers, so that who leads and whom it reaches is seen without reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 560.0
_RADIUS = (196.0, 92.0)
_CLOSE = 50  # entries of the log a follower may be behind and still count as up to date


@dataclass(frozen=True, slots=True)
class Place:
    """A member on the map. `note` is what is said under its name; `tone` colours its mark and its line."""

    id: str
    address: str
    x: float
    y: float
    role: str
    tone: str
    note: str
    here: bool
    reachable: bool


def height(members: int) -> float:
    """Of the map: up to three stand in one row."""
    return 84.0 if members <= 3 else 250.0


def places(members: Sequence[Mapping[str, Any]], node: str) -> list[Place]:
    """The leader first. Without a leader all stand on the ring."""
    centre = (WIDTH / 2, height(len(members)) / 2)
    leader = next((one for one in members if one["role"] == "leader"), None)
    others = [one for one in members if one is not leader]
    if leader is None and len(others) <= 3:  # nobody leads: side by side
        return [
            _place(one, centre[0] + (number - (len(others) - 1) / 2) * _RADIUS[0], centre[1], node)
            for number, one in enumerate(others)
        ]
    found = [_place(leader, *centre, node)] if leader is not None else []
    for number, one in enumerate(others):
        # with two others left and right of the leader; more are spread from the top on
        turn = math.pi if len(others) <= 2 else -math.pi / 2
        angle = turn + 2 * math.pi * number / len(others)
        x, y = centre[0] + _RADIUS[0] * math.cos(angle), centre[1] + _RADIUS[1] * math.sin(angle)
        found.append(_place(one, round(x, 1), round(y, 1), node))
    return found


def _place(one: Mapping[str, Any], x: float, y: float, node: str) -> Place:
    tone, note = _told(one)
    return Place(
        str(one["id"]), str(one.get("address") or ""), x, y, str(one["role"]), tone, note,
        one["id"] == node, bool(one["reachable"]),
    )  # fmt: skip


def _told(one: Mapping[str, Any]) -> tuple[str, str]:
    lag = one.get("match_lag")
    if not one["reachable"]:
        return "bad", "not reachable"
    if one["role"] == "leader":
        return ("warn", "leads, not able to write") if one.get("able") is False else ("ok", "leads")
    if lag is None:
        return "ok" if one.get("able") is not False else "warn", "follows"
    if lag > _CLOSE:
        return "warn", f"{lag} entries behind"
    return "ok", "up to date" if lag == 0 else f"{lag} behind"
