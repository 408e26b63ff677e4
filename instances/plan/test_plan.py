"""What the planner promises, by example."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from instances.plan import actions as act
from instances.plan.model import InstanceView, Strategy
from instances.plan.world import World, nodes, release


def running(count: int = 1, **fields) -> World:
    world = World(count=count, **fields)
    world.wish("deploy", release(1))
    world.settle()
    assert len(world.serving()) == count
    assert world.deployment.status == "succeeded"
    assert world.status == "running"
    return world


def versions(world: World) -> list[int]:
    return sorted(i.release_id // 10 for i in world.serving())


def step(world: World) -> act.Plan:
    made = world.plan()
    world.apply(made)
    return made


def test_an_app_that_was_never_deployed_is_created_and_places_nothing():
    world = World()
    assert world.plan() == act.Plan((), "created")


def test_the_first_deployment_places_all_instances_spread_over_nodes():
    world = World(count=3)
    world.wish("deploy", release(1))
    placed = [a for a in world.plan().actions if isinstance(a, act.Place)]
    assert sorted(a.choice.node.name for a in placed) == ["n1", "n2", "n3"]
    assert [a.slot for a in placed] == [0, 1, 2]


def test_twice_the_instances_cost_no_more_than_twice_the_looks(monkeypatch: pytest.MonkeyPatch):
    """One that looked at every instance for each slot took a second for an app of a thousand, at every change."""
    wanted = InstanceView.wanted.fget
    looks = []

    def counted(instance: InstanceView) -> bool:
        looks.append(instance)
        return wanted(instance)

    def needed(count: int) -> int:
        world = running(count)
        world.wish("deploy", release(2))
        step(world)
        with monkeypatch.context() as patched:
            patched.setattr(InstanceView, "wanted", property(counted))
            looks.clear()
            world.plan()
            return len(looks)

    assert needed(80) <= 2.2 * needed(40)


def test_an_update_starts_the_new_before_it_stops_the_old():
    world = running(1)
    world.wish("deploy", release(2))
    made = step(world)
    assert [type(a) for a in made.actions] == [act.Begin, act.Place, act.Progress]
    assert len(world.wanted()) == 2
    assert versions(world) == [1]
    world.settle()
    assert versions(world) == [2]
    assert world.deployment.status == "succeeded"


def test_a_release_that_fails_is_reverted_and_the_old_one_never_stops():
    world = running(3)
    world.broken = {2}
    old = {i.id for i in world.serving()}
    world.wish("deploy", release(2))
    world.settle()
    assert world.deployment.status == "reverted"
    assert {i.id for i in world.serving()} == old
    (failed,) = world.failures
    assert failed.code == "instance_failed"
    assert "exited with code 1" in failed.why
    assert world.instances[failed.instance].release_id == 20


def test_without_auto_revert_the_old_instances_keep_serving():
    world = running(2, strategy=Strategy(auto_revert=False, min_ready_s=0))
    world.broken = {2}
    world.wish("deploy", release(2))
    world.settle()
    assert world.deployment.status == "failed"
    assert versions(world) == [1, 1]
    assert world.status == "running"


def test_a_first_release_that_fails_leaves_the_app_crashed_without_trying_for_ever():
    world = World(count=2, broken={1})
    world.wish("deploy", release(1))
    world.settle()
    assert world.deployment.status == "failed"
    assert world.status == "crashed"
    assert not world.serving()
    assert len(world.instances) <= 4


def test_slots_that_were_switched_already_come_back_when_a_later_one_fails():
    world = running(3)
    world.wish("deploy", release(2))
    while len(versions(world)) < 4 or 2 not in versions(world):
        step(world)
        for id_ in list(world.instances):
            world.agent_acts(id_)
    world.broken = {2}
    world.settle()
    assert versions(world) == [1, 1, 1]
    assert world.deployment.status == "reverted"


def test_no_progress_for_the_deadline_fails_the_deployment():
    world = running(1)
    world.wish("deploy", release(2))
    step(world)
    world.now += dt.timedelta(seconds=119)
    assert not any(isinstance(a, act.FailDeployment) for a in world.plan().actions)
    world.now += dt.timedelta(seconds=1)
    made = world.plan()
    assert isinstance(made.actions[0], act.FailDeployment)
    assert made.actions[0].code == "no_progress"


def test_a_plan_says_when_it_wants_to_be_asked_again():
    world = running(1)
    world.wish("deploy", release(2))
    step(world)
    made = step(world)
    assert made.actions == ()
    assert made.wait_until == world.deployment.progress_at + dt.timedelta(seconds=120)


def test_nothing_fits_is_a_pending_instance_with_the_reason_and_room_later_takes_it():
    world = World(nodes=nodes(32))
    world.wish("deploy", release(1))
    step(world)
    (pending,) = world.live()
    assert pending.status == "pending"
    assert "64 MB of memory are needed, at most 32 are free" in pending.reason
    assert not step(world).actions
    world.nodes = nodes(32, 128)
    world.settle()
    assert len(world.serving()) == 1
    assert world.status == "running"


def test_no_room_fails_the_deployment_by_that_name():
    world = running(1, nodes=nodes(100))
    world.wish("deploy", release(2))
    world.settle()
    assert world.failures[0].code == "no_room"
    assert versions(world) == [1]
    assert world.deployment.status == "reverted"


def test_scaling_down_takes_what_does_not_serve_first():
    world = running(3)
    first = world.serving()[0]
    world.instances[first.id] = replace(first, status="crashed", health="unknown")
    world.count = 2
    world.wish("scale", release(1))
    stopped = [a.instance for a in world.plan().actions if isinstance(a, act.Stop)]
    assert stopped == [first.id]


def test_scale_up_and_down_keeps_what_runs():
    world = running(1)
    kept = world.serving()[0].id
    for count in (5, 2):
        world.count = count
        world.wish("scale", release(1))
        world.settle()
        assert len(world.serving()) == count
        assert kept in {i.id for i in world.serving()}
        assert world.deployment.status == "succeeded"


@pytest.mark.parametrize("how", ["stopped", "scaled"])
def test_stop_and_scale_to_zero_place_nothing(how):
    world = running(3)
    if how == "stopped":
        world.state = "stopped"
    else:
        world.count = 0
    world.wish("stop", release(1))
    assert not any(isinstance(a, act.Place) for a in world.plan().actions)
    world.settle()
    assert not world.live()
    assert world.status == "stopped"
    world.state, world.count = "running", 3
    world.wish("start", release(1))
    world.settle()
    assert len(world.serving()) == 3


def test_restart_replaces_every_instance_and_a_single_one_drops_nothing():
    world = running(1)
    old = world.serving()[0].id
    world.wish("restart", release(1))
    while world.deployment.active:
        step(world)
        assert world.serving()
        for id_ in list(world.instances):
            world.agent_acts(id_)
            assert world.serving()
    assert old not in {i.id for i in world.serving()}


def test_a_scale_during_a_rollout_carries_it_on():
    world = running(2)
    world.wish("deploy", release(2))
    step(world)
    world.count = 4
    world.wish("scale", release(2))
    world.settle()
    assert versions(world) == [2, 2, 2, 2]


def test_a_third_release_in_mid_rollout_does_not_get_stuck_behind_the_second():
    world = running(1)
    world.wish("deploy", release(2))
    while versions(world) != [1, 2]:
        step(world)
        for id_ in list(world.instances):
            world.agent_acts(id_)
    world.wish("deploy", release(3))
    world.settle()
    assert versions(world) == [3]
    assert not world.failures


def test_a_new_leader_gives_every_deployment_a_full_deadline():
    world = running(1)
    world.wish("deploy", release(2))
    step(world)
    world.now += dt.timedelta(hours=1)
    world.watched_since = world.now - dt.timedelta(seconds=119)
    assert not any(isinstance(a, act.FailDeployment) for a in world.plan().actions)


def test_cancel_brings_the_old_release_back():
    world = running(2)
    world.wish("deploy", release(2))
    step(world)
    world.deployment = replace(world.deployment, status="cancelled")
    world.settle()
    assert versions(world) == [1, 1]
    assert world.deployment.status == "reverted"


def test_cancel_of_a_first_deployment_leaves_nothing():
    world = World(count=2)
    world.wish("deploy", release(1))
    step(world)
    world.deployment = replace(world.deployment, status="cancelled")
    world.settle()
    assert not world.live()


def test_a_lost_node_is_replaced_in_the_same_slots_elsewhere_at_once():
    world = running(3)
    lost = next(i for i in world.serving() if i.node_id == 1)
    world.lose(1)
    placed = [a for a in world.plan().actions if isinstance(a, act.Place)]
    assert [(a.slot, a.replaces) for a in placed] == [(lost.slot, (lost.id,))]
    assert all(a.choice.node.name != "n1" for a in placed)
    world.settle()
    assert len(world.serving()) == 3


def test_repeated_losses_back_off():
    world = running(1)
    for attempt in range(1, 4):
        row = world.wanted()[0]
        world.instances[row.id] = replace(row, status="lost", finished_at=world.now)
        made = world.plan()
        if attempt == 1:
            assert any(isinstance(a, act.Place) for a in made.actions)
        else:
            assert not any(isinstance(a, act.Place) for a in made.actions)
            assert made.wait_until == world.now + dt.timedelta(seconds=10 * 2 ** (attempt - 2))
        world.settle()


def test_draining_moves_instances_without_going_below_the_count():
    world = running(3)
    world.nodes = tuple(replace(n, status="draining") if n.id == 1 else n for n in world.nodes)
    while any(i.node_id == 1 for i in world.live()):
        step(world)
        for id_ in list(world.instances):
            world.agent_acts(id_)
        assert len(world.serving()) >= 3
    world.settle()
    assert len(world.serving()) == 3


def test_recreate_never_runs_both_versions():
    world = running(2, strategy=Strategy(type="recreate", min_ready_s=0))
    world.wish("deploy", release(2))
    while world.deployment.active:
        step(world)
        assert len({i.release_id for i in world.live()}) <= 1
        for id_ in list(world.instances):
            world.agent_acts(id_)
    assert versions(world) == [2, 2]


def test_a_singleton_never_overlaps():
    world = running(1, singleton=True)
    world.wish("restart", release(1))
    while world.deployment.active:
        step(world)
        assert len(world.live()) <= 1
        for id_ in list(world.instances):
            world.agent_acts(id_)


def test_an_instance_that_ended_its_work_is_not_replaced():
    world = running(1)
    row = world.serving()[0]
    world.instances[row.id] = replace(row, status="stopped", finished_at=world.now)
    assert not world.plan().actions
    world.settle()
    assert world.status == "running"


def test_delete_stops_everything_then_purges_and_counts_lost_instances_as_gone():
    world = running(2)
    world.state = "deleted"
    step(world)
    assert world.status == "deleting"
    assert all(i.desired == "stop" for i in world.live())
    for row in world.live():
        world.instances[row.id] = replace(row, status="lost", desired="remove")
    assert [type(a) for a in world.plan().actions] == [act.Purge]


def test_a_release_that_was_to_come_back_but_does_not_is_given_up():
    world = running(1)
    world.wish("deploy", release(2))
    world.settle()
    world.broken = {1, 3}
    world.wish("deploy", release(3))
    world.instances = {
        id_: replace(i, status="failed", finished_at=world.now) if i.wanted else i for id_, i in world.instances.items()
    }
    for _ in range(3):
        step(world)
        for id_ in list(world.instances):
            world.agent_acts(id_)
    world.broken = {1, 2, 3}
    for _ in range(40):
        step(world)
        for id_ in list(world.instances):
            world.agent_acts(id_)
        world.now += dt.timedelta(seconds=30)
    assert world.deployment.status == "reverted"
    assert not world.serving()


def test_a_restart_whose_instances_crash_has_nothing_to_go_back_to():
    world = running(2)
    world.wish("restart", release(1))
    world.settle()
    for row in world.serving():
        for _ in range(3):
            world.crash(row.id)
    assert not any(isinstance(a, act.FailDeployment) for a in world.plan().actions)


def test_a_release_that_crashes_while_it_is_watched_goes_and_later_it_is_let_be():
    for wait_s, failed in ((60, True), (400, False)):
        world = running(2)
        world.wish("deploy", release(2))
        world.settle()
        world.now += dt.timedelta(seconds=wait_s)
        row = world.serving()[0]
        world.crash(row.id)
        assert not any(isinstance(a, act.FailDeployment) for a in world.plan().actions)
        world.crash(row.id)
        assert any(isinstance(a, act.FailDeployment) for a in world.plan().actions) is failed


def test_the_floor_of_a_percentage():
    strategy = Strategy(max_surge="25%", max_unavailable="25%")
    assert [strategy.surge(n) for n in (1, 4, 5, 10)] == [1, 1, 2, 3]
    assert [strategy.floor(n) for n in (1, 4, 5, 10)] == [1, 3, 4, 8]
    assert Strategy(max_surge=0, max_unavailable="25%").surge(2) == 1, "nothing could be replaced otherwise"
    assert Strategy(type="canary", canary_percent=10).beside(25) == 3
    assert Strategy(type="blue_green").headroom(4) == 5
