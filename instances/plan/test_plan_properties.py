"""What the planner promises, whatever happens: random histories against a simulated cluster."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instances.plan import actions as act
from instances.plan.model import Compared, DeploymentView, Figures, ReleaseView, Strategy
from instances.plan.world import World, nodes, release

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

EVENTS = st.one_of(
    st.tuples(st.just("agent"), st.integers(0, 30)),
    st.tuples(st.just("rounds"), st.integers(1, 8)),
    st.tuples(st.just("rounds"), st.integers(1, 8)),
    st.tuples(st.just("apply"), st.integers(0, 6)),
    st.tuples(st.just("apply_all"), st.just(0)),
    st.tuples(st.just("deploy"), st.integers(1, 4)),
    st.tuples(st.just("scale"), st.integers(0, 6)),
    st.tuples(st.just("workers"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["restart", "stop", "start", "cancel", "pause", "resume", "promote"]), st.just(0)),
    st.tuples(st.sampled_from(["crash", "unhealthy"]), st.integers(0, 30)),
    st.tuples(st.sampled_from(["lose", "return", "drain"]), st.integers(1, 3)),
    st.tuples(st.sampled_from(["requests", "errors"]), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 200)),
)
STRATEGIES = st.builds(
    Strategy,
    type=st.sampled_from(["rolling", "rolling", "recreate", "canary", "blue_green"]),
    max_surge=st.one_of(st.integers(0, 3), st.sampled_from(["0%", "25%", "100%"])),
    max_unavailable=st.one_of(st.integers(0, 2), st.sampled_from(["25%", "50%"])),
    min_ready_s=st.sampled_from([0.0, 1.0, 30.0]),
    canary_percent=st.sampled_from([1, 25, 60]),
    bake_s=st.sampled_from([0.0, 20.0]),
    promote=st.sampled_from(["auto", "auto", "manual"]),
    keep_warm_s=st.sampled_from([0.0, 50.0]),
    watch_s=st.sampled_from([0.0, 100.0]),
    auto_revert=st.booleans(),
)


def made_of(number: int) -> ReleaseView:
    """Release 3 has no workers, the others have."""
    return release(number) if number == 3 else release(number, 64, "worker")


def happens(world: World, what: str, how: int, last: list) -> None:
    rows = list(world.instances)
    row = world.instances[rows[how % len(rows)]] if rows else None
    if what == "agent" and row:
        world.agent_acts(row.id)
    elif what == "rounds":
        for _ in range(how):
            world.apply(checked(world))
            for id_ in list(world.instances):
                world.agent_acts(id_)
            world.now += dt.timedelta(seconds=10)
    elif what in ("apply", "apply_all"):
        made = checked(world)
        world.apply(made, how if what == "apply" else None)
    elif what == "deploy":
        last[0] = how
        world.wish("deploy", made_of(how))
    elif what == "scale":
        world.count = how
        world.wish(what, made_of(last[0]))
    elif what == "workers":
        world.others = {"worker": how}
        world.wish("scale", made_of(last[0]))
    elif what == "restart" and not (world.deployment and world.deployment.on_trial):
        world.wish(what, made_of(last[0]))
    elif what in ("stop", "start"):
        if world.deployment and world.deployment.on_trial and world.deployment.previous:
            last[0] = world.deployment.previous.number  # a trial ends with what ran before
        world.state = "stopped" if what == "stop" else "running"
        world.wish(what, made_of(last[0]))
    elif what == "cancel" and world.deployment and world.deployment.status in ("pending", "rolling"):
        world.deployment = replace(world.deployment, status="cancelled")
    elif what in ("pause", "resume", "promote") and world.deployment:
        world.deployment = by_hand(what, world)
    elif what in ("requests", "errors") and world.deployment:
        new = Figures(1000, 500 if what == "errors" else 0)
        world.deployment = replace(world.deployment, compared=Compared(new, Figures(1000, 0)))
    elif what == "crash" and row and row.status == "running":
        world.crash(row.id)
    elif what == "unhealthy" and row and row.status == "running":
        world.instances[row.id] = replace(row, health="unhealthy", healthy_since=None)
    elif what == "lose":
        world.lose(how)
    elif what in ("return", "drain"):
        status = "ready" if what == "return" else "draining"
        world.nodes = tuple(replace(n, status=status) if n.id == how else n for n in world.nodes)
    elif what == "wait":
        world.now += dt.timedelta(seconds=how)


def by_hand(what: str, world: World) -> DeploymentView:
    """pause, resume and promote as the verbs allow them."""
    deployment = world.deployment
    assert deployment is not None
    strategy = deployment.strategy
    if what == "pause" and deployment.under_way and deployment.changes and strategy.type != "recreate":
        return replace(deployment, paused=True)
    if what == "resume" and deployment.paused:
        return replace(deployment, paused=False, progress=None, progress_at=world.now)
    if what == "promote" and deployment.under_way and strategy.stepwise and not deployment.paused:
        percent = None if strategy.type == "canary" else deployment.new_percent
        return replace(deployment, promoted=True, new_percent=percent, progress=None, progress_at=world.now)
    return deployment


def checked(world: World) -> act.Plan:
    """The plan, with everything asserted that must hold for any single plan."""
    made = world.plan()
    assert made == world.plan(), "the same input gave another plan"
    stops = {a.instance for a in made.actions if isinstance(a, act.Stop)}
    places = [a for a in made.actions if isinstance(a, act.Place)]
    desired = world.desired()
    assert all(world.instances[i].wanted for i in stops), "stops what is stopping already"
    strategy = world.deployment.strategy if world.deployment else Strategy()
    for name in ("web", "worker"):
        count, placed = desired.count_of(name), [p for p in places if p.process_type == name]
        if placed:
            assert count > 0, "stop and scale to zero place nothing"
            most = count + (0 if strategy.type == "recreate" else strategy.headroom(count))
            there = [i for i in world.wanted() if i.process_type == name and i.id not in stops]
            assert len(there) + len(placed) <= most, "above desired + surge"
            assert all(p.release.has(name) for p in placed), "a release runs what it has not"
    if world.deployment and strategy.type != "recreate":
        keeps_the_floor(world, made, strategy.floor(desired.count_of("web")))
    for place in places:
        node = place.choice.node
        assert node is None or node.status == "ready", "placed on a node that is not ready"
    return made


def keeps_the_floor(world: World, made: act.Plan, floor: int) -> None:
    """No plan takes so many out of serving that fewer slots than the floor have one that takes requests."""
    assert world.deployment is not None
    if world.deployment.status == "cancelled" and world.deployment.previous is None:
        return  # there is nothing that should run
    after = replace(world, instances=dict(world.instances), failures=[])
    after.apply(made)
    before_slots, after_slots = (slots_served(each) for each in (world, after))
    assert len(after_slots) >= min(len(before_slots), floor), "below the floor by choice"


def slots_served(world: World) -> set[int]:
    return {row.slot for pool in world.pools().values() for row in pool}


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=60), STRATEGIES, st.integers(1, 5), st.sets(st.integers(2, 4), max_size=2))
def test_every_plan_of_every_history_keeps_the_promises_and_settles(events, strategy, count, broken):
    world = World(count=count, strategy=strategy, nodes=nodes(1024, 1024, 1024))
    last = [1]
    world.wish("deploy", made_of(1))
    world.settle()
    world.broken = broken
    for what, how in events:
        happens(world, what, how, last)
        checked(world)
    world.nodes = tuple(replace(n, status="ready") for n in world.nodes)
    for row in list(world.instances.values()):  # an unhealthy one gets well or crashes, sooner or later
        if row.status == "running" and row.health != "healthy":
            world.instances[row.id] = replace(row, status="running", health="healthy")
    if world.deployment is not None:  # whoever paused it goes on, and then whoever promotes by hand does
        for verb in ("resume", "promote"):
            world.deployment = by_hand(verb, world)
        world.deployment = replace(world.deployment, paused=False, promoted=True, progress_at=world.now, compared=None)
    failures, world.watched_since = len(world.failures), world.now  # a new leader
    settle(world)
    if not broken:
        assert [f for f in world.failures[failures:] if f.code not in ("instance_crashed",)] == [], "stuck by itself"
    assert not world.plan().changes(world.status), "the fixed point has a plan"
    if world.state == "stopped" or not last[0]:
        assert not world.live() or not last[0]
    if world.status == "running":
        assert slots_served(world) or not world.count
        release_id = next(i.release_id for i in world.serving()) if world.serving() else 0
        workers = [i for i in world.serving() if i.process_type == "worker"]
        assert len(workers) >= (world.others.get("worker", 0) if release_id not in (0, 30) else 0)


def settle(world: World) -> None:
    for _ in range(300):
        made = checked(world)
        world.apply(made)
        before = dict(world.instances)
        for id_ in list(world.instances):
            world.agent_acts(id_)
        if not made.changes(world.status) and before == world.instances:
            if made.wait_until is None:
                return
            if hopeless(world):
                return
            world.now = max(world.now, made.wait_until)
    raise AssertionError(f"does not settle: {world.plan()} {world.deployment}")


def hopeless(world: World) -> bool:
    """Only broken releases are left to try: the platform tries on for ever, ever more slowly."""
    deployment = world.deployment
    if deployment is None or deployment.active:
        return False
    target = deployment.release if deployment.status == "succeeded" else deployment.previous or deployment.release
    return target is not None and target.number in world.broken


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), STRATEGIES, st.integers(0, 40), st.integers(0, 8))
def test_an_update_converges_from_every_interrupted_prefix(before, after, strategy, steps, prefix):
    world = World(count=before, strategy=strategy)
    world.wish("deploy", made_of(1))
    world.settle()
    world.count = after
    world.wish("deploy", made_of(2))
    for step in range(steps):
        world.apply(checked(world), prefix if step % 2 else None)
        for id_ in list(world.instances)[step % 2 :: 2]:
            world.agent_acts(id_)
    world.deployment = by_hand("promote", world)
    world.settle()
    assert [i.release_id for i in world.serving()] == [20] * after
    assert len(world.live()) == after
    assert world.deployment.status == "succeeded"
    assert world.plan().actions == ()
