"""Plays faults one after the other, in an order that a seed chooses, with rests in which the cluster must recover.

Owns the order and the record of what was played when; what each fault does is in `faults`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.cluster.faults import FAULTS, Fault
from tests.cluster.lab import Lab


@dataclass(frozen=True, slots=True)
class Played:
    """One fault as it was: for the report, and for blaming."""

    name: str
    start: float
    end: float
    leader: str


@dataclass
class Driver:
    """Plays faults from a seed: the rare ones first, in an order of the seed's own, then any."""

    lab: Lab
    seed: int
    rest_s: float = 5.0
    only: tuple[str, ...] = ()
    played: list[Played] = field(default_factory=list)

    def choices(self) -> Iterator[Fault]:
        """The same for the same seed and lab, whatever happens meanwhile."""
        chance = random.Random(f"{self.seed}-faults")
        usable = [one for one in FAULTS.values() if (not self.only or one.name in self.only) and self._has(one.needs)]
        rare = [one for one in usable if one.rare]
        chance.shuffle(rare)
        yield from rare
        while True:
            yield from chance.sample(usable, len(usable))

    def run(self, seconds: float, say: Callable[[str], None] = lambda _line: None) -> None:
        """Until the time is over; always ends healed."""
        deadline = time.monotonic() + seconds
        for number, one in enumerate(self.choices()):
            if time.monotonic() > deadline - one.lasts_s:
                break
            with self.broken(one, number) as what:
                say(what)
                time.sleep(one.lasts_s)
            time.sleep(self.rest_s)
        self.lab.heal()

    @contextmanager
    def broken(self, one: Fault, number: int = 0) -> Iterator[str]:
        chance = random.Random(f"{self.seed}-{number}-{one.name}")
        leader = self.lab.leader()
        begun = time.monotonic()
        end = one.begin(self.lab, chance)
        try:
            yield one.name
        finally:
            end()
            self.played.append(Played(one.name, begun, time.monotonic(), leader.name if leader else ""))

    def _has(self, need: str) -> bool:
        if need == "broker":
            return self.lab.broker is not None
        if need == "cables":
            return self.lab.has_cables
        return not need or bool(getattr(self.lab.shape, need))
