"""Process types under one deployment: what stands aside, and what leaves last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instances.plan import actions as act
from instances.plan.model import CommandView, Strategy
from instances.plan.world import World, release

WITH, WITHOUT = release(1, 64, "worker"), release(2)


@pytest.mark.parametrize("kind", ["rolling", "recreate", "canary", "blue_green"])
def test_a_type_that_the_new_release_drops_leaves_under_every_strategy(kind: str) -> None:
    world = World(count=2, others={"worker": 2}, strategy=Strategy(type=kind, min_ready_s=0, bake_s=1, keep_warm_s=30))
    world.wish("deploy", WITH)
    world.settle()
    world.wish("deploy", WITHOUT)
    world.settle()
    assert world.failures == []
    assert sorted(i.process_type for i in world.live()) == ["web", "web"]


def test_nothing_of_a_release_is_placed_before_its_command_and_the_old_one_is_kept() -> None:
    world = World(count=2)
    world.wish("deploy", release(1))
    world.settle()
    world.wish("deploy", release(2))
    assert world.deployment is not None
    world.deployment = replace(world.deployment, command=CommandView("running"))
    world.lose(1)
    for _ in range(4):
        made = world.plan()
        assert all(a.release.number == 1 for a in made.actions if isinstance(a, act.Place))
        world.apply(made)
        for id_ in list(world.instances):
            world.agent_acts(id_)
    assert [i.release_id for i in world.serving()] == [10, 10]
    world.deployment = replace(world.deployment, command=CommandView("failed", "exited with code 1", 7))
    (failed, _) = world.plan().actions
    assert isinstance(failed, act.FailDeployment)
    assert (failed.code, failed.instance) == ("release_command_failed", 7)
