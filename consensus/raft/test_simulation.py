"""Raft under cuts, crashes, freezes and power cuts, in made-up time: the rules of `simulated.World` hold throughout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus.raft.simulated import World

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

SEEDS = int(os.environ.get("OMNI_TEST_RAFT_SEEDS", "0"))


def _story(world: World, seconds: float, *, members_change: bool = False) -> None:
    """Random faults and commands for so long, then peace."""
    chance = world.random
    world.start(*world.ids)
    if members_change:
        assert world.run(10.0, world.found)
    end = world.now + seconds
    number = 0
    while world.now < end:
        for _ in range(chance.randrange(1, 8)):
            world.run(chance.uniform(0.005, 0.4))
            number += 1
            if world.members:
                world.submit(chance.choice(sorted(world.members)), f"c{number}")
        _fault(world)
        if members_change and chance.random() < 0.5:
            world.change_members()
    world.frozen.clear()
    world.heal()
    world.start(*[id for id in world.ids if id not in world.members])
    for _ in range(3):  # a removal may have been on its way still
        assert world.run(30.0, lambda: not world.change_members(only_add=True) and world.settled()), "did not settle"
        world.run(1.0)
    world.verdict()


def _fault(world: World) -> None:
    """Something breaks or is mended; about as often the one as the other, so that there is mostly a leader."""
    chance = world.random
    up = sorted(world.members)
    down = sorted(set(world.ids) - set(up))
    if chance.random() < 0.5:
        world.heal()
        world.frozen.clear()
        world.start(*down[:2])
        return
    victim = (world.leader() if chance.random() < 0.5 else None) or chance.choice(up or world.ids)
    match chance.randrange(9):
        case 0:
            world.cut(*chance.sample(world.ids, 2))
        case 1 | 2:
            world.isolate(victim)
        case 3 if up:
            world.crash(victim)
        case 4 if up:
            world.crash(victim, power_cut=True)
        case 5 if up:
            world.frozen.add(victim)
        case 6 if len(up) > 1:
            world.hang_up(*chance.sample(up, 2))
        case 7:
            world.hand_over()
        case 8 if world.settled() and not down and not world.cuts:
            world.crash(victim)  # one disk at a time, and the others are well
            world.wipe(victim)
            world.start(victim)
            world.run(10.0, world.settled)


@pytest.mark.parametrize("seed", range(SEEDS or 4))
@pytest.mark.parametrize("size", [3, 5])
def test_nothing_acknowledged_is_lost_and_nobody_leads_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, size: int
) -> None:
    with World(tmp_path, [f"m-{number}" for number in range(size)], seed * 10 + size, monkeypatch) as world:
        world.compact_after = [1_000_000, 30][seed % 2]
        _story(world, 30.0)


@pytest.mark.parametrize("seed", range(SEEDS or 4))
def test_the_same_while_members_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with World(tmp_path, [f"m-{number}" for number in range(5)], 7000 + seed, monkeypatch) as world:
        world.compact_after = [1_000_000, 30][seed % 2]
        _story(world, 30.0, members_change=True)


@pytest.mark.parametrize("seed", range(SEEDS or 2))
def test_the_same_on_a_slow_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with World(tmp_path, ["m-0", "m-1", "m-2"], 9000 + seed, monkeypatch) as world:
        world.compact_after = 40
        world.latency = (0.001, 0.06)
        _story(world, 30.0)
