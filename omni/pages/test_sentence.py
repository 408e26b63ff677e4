"""The sentence about an app: what is told, in which words, and that no state is left without one."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.states import DeploymentStatus, InstanceStatus
from omni.pages.sentence import AppSeen, DeploymentSeen, InstanceSeen, ended, restarts_lately, sentence

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


def well(slot: int) -> InstanceSeen:
    return InstanceSeen(slot, "running", "healthy")


def running(*rows: InstanceSeen, wanted: int = 4, **fields: object) -> AppSeen:
    return AppSeen("running", wanted, released=True, instances=rows, **fields)  # type: ignore[arg-type]


def test_the_example_of_the_issue() -> None:
    killed = InstanceSeen(2, "crashed", "unknown", restarts=5, ended=ended({"signal": 9, "oom": True}))
    told = sentence(running(well(0), well(1), killed, well(3)))
    assert told.text == "3 of 4 healthy; slot 2 restarted 5 times in 10 minutes: exit 137, out of memory."
    assert told.tone == "warn"


def test_all_well_is_said_shortly() -> None:
    told = sentence(running(*[well(slot) for slot in range(4)]))
    assert (told.tone, told.text, told.also) == ("ok", "4 of 4 healthy.", ())


def test_a_healthy_instance_that_restarted_lately_is_not_passed_over() -> None:
    shaky = InstanceSeen(0, "running", "healthy", restarts=1, ended="exit 1")
    told = sentence(running(shaky, wanted=1))
    assert told.text == "1 of 1 healthy; slot 0 restarted once in 10 minutes: exit 1."
    assert told.tone == "warn"


def test_many_troubled_slots_are_counted() -> None:
    rows = [InstanceSeen(slot, "crashed", "unknown", ended=f"exit {slot}") for slot in range(9)]
    told = sentence(running(*rows, wanted=9))
    assert told.tone == "bad"
    assert told.text.endswith("6 more slots are not healthy.")


def test_process_types_have_slots_of_their_own() -> None:
    worker = InstanceSeen(0, "failed", "unknown", ended="exit 1", type="worker")
    told = sentence(running(well(0), worker, wanted=2))
    assert told.text == "1 of 2 healthy; worker slot 0 failed: exit 1."


def test_a_slot_without_room_says_why() -> None:
    waits = InstanceSeen(1, "pending", "unknown", reason="no node fits: 64 MB are missing.")
    assert "slot 1 waits for a node (no node fits: 64 MB are missing)" in sentence(running(well(0), waits)).text


@pytest.mark.parametrize(
    ("app", "text"),
    [
        (AppSeen("stopped", 3, True), "Stopped on request."),
        (AppSeen("deleted", 3, True, [well(0)]), "Being deleted; 1 instance still to stop."),
        (AppSeen("running", 3, False), "Nothing is deployed yet."),
        (AppSeen("running", 0, True), "Scaled to no instances."),
    ],
)
def test_what_is_not_to_run_is_no_trouble(app: AppSeen, text: str) -> None:
    assert (sentence(app).tone, sentence(app).text) == ("off", text)


def test_a_rollout_is_told_beside_the_state() -> None:
    rolling = DeploymentSeen("deploy", "rolling", "7", "rolling", on_new=2)
    told = sentence(running(well(0), well(1), InstanceSeen(2, "starting", "starting"), deployment=rolling))
    assert told.tone == "busy"
    assert told.also == ("Version 7 is rolling out: 2 of 4 on it are healthy.",)


def test_a_release_that_failed_is_told_with_its_reason() -> None:
    back = DeploymentSeen("deploy", "reverted", "8", None, error="exit 3", previous="7")
    assert sentence(running(well(0), wanted=1, deployment=back)).also == (
        "Version 8 failed and went back to 7 (exit 3).",
    )


def test_freeze_and_maintenance_are_told_last() -> None:
    told = sentence(running(well(0), wanted=1, maintenance=True, frozen="holidays", building="9"))
    assert told.also == (
        "Version 9 is being built.", "Visitors get the maintenance page.", "Deployments are frozen: holidays."
    )  # fmt: skip


def test_how_processes_end() -> None:
    assert ended(None) == ""
    assert ended({"code": 3}) == "exit 3"
    assert ended({"signal": 15}) == "exit 143 (SIGTERM)"
    assert ended({"code": 137, "oom": True}) == "exit 137, out of memory"


def test_restarts_are_counted_within_ten_minutes() -> None:
    def entry(minutes: float, restarts: int) -> dict[str, object]:
        return {"at": (NOW - dt.timedelta(minutes=minutes)).isoformat(), "restarts": restarts}

    assert restarts_lately([], 3, NOW) == 3
    assert restarts_lately([entry(30, 1), entry(20, 4), entry(5, 6)], 7, NOW) == 3
    full = [entry(9, 10 + number) for number in range(50)]
    assert restarts_lately(full, 60, NOW) == 50, "what the bounded history has dropped is not counted as new"


seen = st.builds(
    InstanceSeen,
    slot=st.integers(0, 9),
    status=st.sampled_from(InstanceStatus.values),
    health=st.sampled_from(["healthy", "unhealthy", "starting", "unknown"]),
    restarts=st.integers(0, 20),
    ended=st.sampled_from(["", "exit 1"]),
    detail=st.sampled_from(["", "connection refused."]),
)
deployments = st.none() | st.builds(
    DeploymentSeen,
    kind=st.sampled_from(["deploy", "scale", "stop", "rollback", "config"]),
    status=st.sampled_from(DeploymentStatus.values),
    version=st.none() | st.just("7"),
    phase=st.sampled_from([None, "pending", "rolling", "paused", "baking", "awaiting_promotion", "reverting", "warm"]),
)


@given(
    state=st.sampled_from(["running", "stopped", "deleted"]),
    wanted=st.integers(0, 10),
    released=st.booleans(),
    rows=st.lists(seen, max_size=12),
    deployment=deployments,
)
def test_every_state_has_sentences_and_all_is_well_only_when_it_is(
    state: str, wanted: int, released: bool, rows: list[InstanceSeen], deployment: DeploymentSeen | None
) -> None:
    told = sentence(AppSeen(state, wanted, released, rows, deployment))
    for text in (told.text, *told.also):
        assert text.endswith(".")
        assert ".." not in text
    if told.tone == "ok":
        assert len({row.slot for row in rows if row.healthy}) >= wanted > 0


def test_slots_of_which_the_same_is_to_be_said_are_told_together() -> None:
    rows = [InstanceSeen(slot, "running", "healthy", restarts=1, ended="exit 0") for slot in range(3)]
    told = sentence(AppSeen("running", 3, True, rows))
    assert told.text == "3 of 3 healthy; slots 0, 1 and 2 restarted once in 10 minutes: exit 0."
    lost = [InstanceSeen(slot, "lost", "unknown") for slot in range(7)]
    assert sentence(AppSeen("running", 7, True, lost)).text == "0 of 7 healthy; 7 slots were lost with their node."
