from __future__ import annotations

from releases.states import API, BUILD, LEADER, WORKER, BuildStatus


def test_the_table_is_sound() -> None:
    assert BUILD.faults() == []


def test_only_the_leader_gives_up_on_a_worker() -> None:
    assert BUILD.sources(BuildStatus.LOST, LEADER) == {BuildStatus.BUILDING}
    assert not BUILD.sources(BuildStatus.LOST, WORKER)
    assert not BUILD.sources(BuildStatus.LOST, API)


def test_a_worker_ends_only_what_it_builds() -> None:
    for end in (BuildStatus.SUCCEEDED, BuildStatus.FAILED, BuildStatus.CANCELLED):
        assert BUILD.sources(end, WORKER) == {BuildStatus.BUILDING}
