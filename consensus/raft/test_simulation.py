"""Raft under cuts, crashes, freezes and power cuts, in made-up time: the rules of `simulated.World` hold throughout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus.raft.simulated import World

SEEDS = int(os.environ.get("OMNI_TEST_RAFT_SEEDS", "0"))


def _story(world: World, seconds: float) -> None:
    """Random faults and commands for so long, then peace."""
    chance = world.random
    world.start()
    end = world.now + seconds
    number = 0
    while world.now < end:
        world.run(chance.uniform(0.02, 0.6))
        for _ in range(chance.randrange(4)):
            number += 1
            if world.members:
                world.submit(chance.choice(sorted(world.members)), f"c{number}")
        _fault(world)
    world.frozen.clear()
    world.heal()
    world.start(*[id for id in world.ids if id not in world.members])
    assert world.run(30.0, world.settled), "the cluster did not settle"
    world.run(1.0)
    world.verdict()


def _fault(world: World) -> None:
    chance = world.random
    up = sorted(world.members)
    down = sorted(set(world.ids) - set(up))
    match chance.randrange(14):
        case 0 | 1 if len(up) > 1:
            world.cut(*chance.sample(world.ids, 2))
        case 2:
            world.isolate(world.leader() or chance.choice(world.ids))
        case 3:
            world.isolate(chance.choice(world.ids))
        case 4 | 5 | 6:
            world.heal()
        case 7 if up:
            world.crash(world.leader() or chance.choice(up))
        case 8 if up:
            world.crash(chance.choice(up), power_cut=True)
        case 9 | 10 if down:
            world.start(chance.choice(down))
        case 11 if up:
            world.frozen.add(world.leader() or chance.choice(up))
        case 12:
            world.frozen.clear()
        case 13 if len(up) > 1:
            world.hang_up(*chance.sample(up, 2))


@pytest.mark.parametrize("seed", range(SEEDS or 4))
@pytest.mark.parametrize("size", [3, 5])
def test_nothing_acknowledged_is_lost_and_nobody_leads_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, size: int
) -> None:
    world = World(tmp_path, [f"m-{number}" for number in range(size)], seed * 10 + size, monkeypatch)
    world.compact_after = [1_000_000, 30][seed % 2]
    _story(world, 20.0)
