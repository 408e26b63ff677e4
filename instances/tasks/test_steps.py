"""What is next for a task, by rules alone."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from instances.states import InstanceStatus
from instances.tasks import steps
from instances.tasks.states import ACTIVE, ENDED, LEADER, TASK, TaskStatus
from instances.tasks.steps import End, Place, Run, Seen, Stop, TaskView, Wait, step

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=60)


def view(status: str, **fields: object) -> TaskView:
    return TaskView(status, LATER, **fields)  # type: ignore[arg-type]


def test_the_table_of_tasks_is_sound() -> None:
    assert TASK.faults() == []


def test_a_queued_task_waits_for_a_node_until_its_time_is_up() -> None:
    assert isinstance(step(view("queued"), None, NOW), Place)
    late = step(view("queued"), None, LATER)
    assert isinstance(late, End)
    assert (late.status, late.error_code) == ("failed", "no_room")


def test_its_time_runs_from_the_start_of_its_process() -> None:
    begun = step(view("placed", timeout_s=5.0), Seen("starting", begun=True), NOW)
    assert begun == Run(NOW + dt.timedelta(seconds=5))
    assert step(view("running", stop_by=LATER), Seen("running"), NOW) == Wait(LATER)
    over = step(view("running", stop_by=NOW), Seen("running"), NOW)
    assert isinstance(over, Stop)
    assert over.code == "timed_out"


def test_how_it_ended_is_told_by_code_signal_and_memory() -> None:
    ends = {
        ("succeeded", ""): {"code": 0, "signal": None},
        ("failed", "exit_code"): {"code": 3, "signal": None},
        ("failed", "killed"): {"code": None, "signal": 9},
        ("failed", "out_of_memory"): {"code": None, "signal": 9, "oom": True},
        ("failed", "ended_unseen"): {"code": None, "signal": None},
    }
    for (status, code), last in ends.items():
        end = step(view("running"), Seen("stopped" if status == "succeeded" else "failed", last_exit=last), NOW)
        assert isinstance(end, End)
        assert (end.status, end.error_code) == (status, code)
    refused = step(view("placed"), Seen("failed", detail="no such runtime"), NOW)
    assert isinstance(refused, End)
    assert (refused.error_code, refused.why) == ("not_run", "no such runtime")


SEEN = st.one_of(
    st.none(),
    st.builds(
        Seen,
        status=st.sampled_from([str(status) for status in InstanceStatus]),
        desired=st.sampled_from(["run", "stop"]),
        last_exit=st.one_of(st.none(), st.fixed_dictionaries({"code": st.integers(0, 2), "signal": st.none()})),
        begun=st.booleans(),
    ),
)


@given(
    status=st.sampled_from(sorted(ACTIVE)),
    seen=SEEN,
    code=st.sampled_from(["", "cancelled", "timed_out", "not_started"]),
    ahead=st.integers(-100, 100),
)
def test_every_step_is_an_edge_of_the_table_and_nothing_begins_twice(
    status: str, seen: Seen | None, code: str, ahead: int
) -> None:
    if status == TaskStatus.STOPPING and not code:
        return  # the verb that moves it there writes one
    if status == TaskStatus.QUEUED:
        seen = None  # its instance is made by the step that ends this state
    task = TaskView(status, NOW, NOW, code, 10.0)
    found = step(task, seen, NOW + dt.timedelta(seconds=ahead))
    to = {Place: TaskStatus.PLACED, Run: TaskStatus.RUNNING, Stop: TaskStatus.STOPPING}.get(type(found))
    if isinstance(found, steps.End):
        to = TaskStatus(found.status)
        assert to in ENDED
    if to is not None:
        assert TASK.allows(status, to, LEADER), (status, to)
    if isinstance(found, Place):
        assert status == TaskStatus.QUEUED
    if seen is not None and seen.status in ("stopped", "failed", "lost"):
        assert isinstance(found, steps.End)
