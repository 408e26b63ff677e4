"""What tasks say of an instance: the cases that Swarm was seen to make."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.runtimes.base import Observation
from agent.runtimes.engine.tasks import PARKED, judge

_STATES = ("new", "pending", "assigned", "preparing", "starting", "running", "complete", "failed", "shutdown",
           "rejected", "orphaned")  # fmt: skip


def task(number: int, state: str, desired: str = "running", *, node: str = "a", code: int = 0, parked: bool = False,
         container: bool = True) -> dict[str, Any]:  # fmt: skip
    placement = {"Constraints": [PARKED]} if parked else {}
    own = {"ContainerStatus": {"ContainerID": f"c{number}", "PID": 7, "ExitCode": code}} if container else {}
    return {
        "ID": f"t{number}",
        "CreatedAt": f"2026-11-23T01:00:{number:02d}.5Z",
        "NodeID": node,
        "DesiredState": desired,
        "Spec": {"Placement": placement},
        "Status": {"State": state, "Err": "why", **own},
    }


def test_the_one_that_runs_counts():
    seen = judge([task(2, "running"), task(1, "shutdown", "shutdown", code=143)])
    assert (seen.state, seen.container, seen.observation()) == ("running", "c2", Observation("running"))


def test_a_program_that_ended_has_ended_although_swarm_would_start_it_again():
    for state, code in (("failed", 7), ("complete", 0)):
        seen = judge([task(1, state, "shutdown", code=code), task(2, "pending", "ready", container=False)])
        assert seen.observation() == Observation("ended", code=code)


def test_a_lost_node_is_no_end_while_swarm_moves_the_task():
    tasks = [task(1, "running", "shutdown", node="gone"), task(2, "assigned", node="b", container=False)]
    assert judge(tasks, {"gone"}).state == "waiting"
    assert judge(tasks, {"gone"}).observation() == Observation("running")
    assert judge([tasks[0], task(2, "running", node="b")], {"gone"}).node == "b"


def test_what_swarm_gave_up_on_a_lost_node_and_does_not_move_is_gone():
    assert judge([task(1, "running", "shutdown", node="gone")], {"gone"}).observation() == Observation("absent")


def test_a_drained_node_is_no_end_while_swarm_moves_the_task():
    seen = judge([task(1, "shutdown", "shutdown", code=143), task(2, "preparing", container=False)])
    assert seen.state == "waiting"


def test_a_parked_task_never_counts_and_its_predecessor_runs_until_it_has_ended():
    parked = task(2, "pending", "ready", parked=True, container=False)
    assert judge([task(1, "running", "shutdown"), parked]).container == "c1"
    assert judge([task(1, "shutdown", "shutdown", code=3), parked]).observation() == Observation("ended", code=3)
    assert judge([task(1, "shutdown", "shutdown", code=137), parked]).observation() == Observation("ended", signal=9)


def test_nobody_knows_how_a_task_without_a_container_ended():
    assert judge([task(1, "rejected", "shutdown", container=False)]).observation() == Observation("absent")
    assert judge([]).observation() == Observation("absent")


@given(st.lists(st.tuples(st.sampled_from(_STATES), st.sampled_from(["running", "shutdown"])), max_size=5))
def test_whatever_runs_and_is_reachable_is_never_called_ended(found: list[tuple[str, str]]):
    tasks = [task(number, state, desired) for number, (state, desired) in enumerate(found)]
    seen = judge(tasks)
    if any(state == "running" for state, _ in found):
        assert seen.state == "running"
    assert seen.observation().state in ("running", "ended", "absent")
