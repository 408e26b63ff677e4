"""Leaders that freeze, die or are cut off at the worst moment: the next one writes, and the old one never again."""

from __future__ import annotations

import time

import pytest

from tests.cluster import network
from tests.cluster.conftest import UnderLoad
from tests.cluster.history import Op
from tests.cluster.lab import Lab
from tests.cluster.nodes import LabNode
from tests.cluster.workload import Workload
from tests.running_platform import wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

ROUNDS = 8  # the frozen one must wake before the database ends its transaction by itself, after two seconds


def freeze_at(node: LabNode, point: str) -> None:
    """Let some write of this node walk into the failpoint, and freeze there."""
    before = len(node.hits(point))
    node.arm(point, "stop")
    wait_for(lambda: len(node.hits(point)) > before, f"a write at {point}", 20, every_s=0.002)
    node.frozen = True


def next_write(work: Workload, since: float, within_s: float = 60.0) -> Op:
    """The first write that began after `since` and was acknowledged."""

    def look() -> Op | None:
        return next((op for op in work.acknowledged() if op.start > since), None)

    try:
        found = wait_for(look, "the next acknowledged write", within_s, every_s=0.01)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{work.account(since)}") from None
    assert found is not None
    return found


def test_a_frozen_leader_that_wakes_up_is_refused_by_the_fence(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        for _ in range(ROUNDS):
            work.wait_for_writes(3)
            leader = lab.wait_for_leader()
            refusals = leader.log.count("deposed: the fence refused")
            freeze_at(leader, "before_fence")
            followed = new_write(lab)
            leader.thaw()
            if followed and _refused(leader, refusals):
                return
            lab.wait_for_leader()
    pytest.fail(f"the fence refused nobody in {ROUNDS} rounds")


def new_write(lab: Lab, within_s: float = 4.0) -> bool:
    """Until the next leader has claimed and written; False when that took too long for the frozen one to matter."""
    epoch, deadline = lab.epoch(), time.monotonic() + within_s
    while time.monotonic() < deadline:
        newest = lab.epoch()
        if newest > epoch and lab.epoch_of_last_write() >= newest:
            return True
        time.sleep(0.005)
    return False


def _refused(node: LabNode, before: int) -> bool:
    deadline = time.monotonic() + 3.0
    while time.monotonic() < deadline:
        if node.log.count("deposed: the fence refused") > before:
            return True
        time.sleep(0.05)
    return False


def test_a_leader_frozen_inside_its_transaction_holds_nobody_up(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        leader = lab.wait_for_leader()
        freeze_at(leader, "fenced_before_commit")
        frozen_at = time.monotonic()
        next_write(work, frozen_at)  # while it is frozen; how soon is bench.failover's
        assert lab.wait_for_leader(but=leader) is not leader
        time.sleep(0.5)
        leader.thaw()


def test_a_leader_cut_off_from_its_peers_but_not_from_the_database_stops_writing(
    lab: Lab, under_load: UnderLoad
) -> None:
    with under_load() as work:
        leader = lab.wait_for_leader()
        network.cut(leader.host, [node.host.address for node in lab.nodes if node is not leader])
        cut_at = time.monotonic()
        answer = wait_for(lambda: _refused_write(lab, leader), "the old leader's refusal", 10)
        assert answer is not None
        assert lab.wait_for_leader(but=leader) is not leader
        next_write(work, cut_at)
        read = lab.get(leader, "/app?limit=1", 5.0)
        assert read is not None
        assert read.status_code == 200


def _refused_write(lab: Lab, node: LabNode) -> dict[str, str] | None:
    answer = lab.post(node, "/app/create", {"name": "nobody"}, 8.0)
    if answer is None or answer.status_code != 503:
        return None
    assert answer.headers["omni-outcome"] == "not-applied"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == "no_leader"
    return dict(answer.headers)


def test_a_minority_refuses_writes_and_still_reads(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        leader = lab.wait_for_leader()
        node = next(node for node in lab.nodes if node is not leader)
        network.cut(node.host, [other.host.address for other in lab.nodes if other is not node])
        cut_at = time.monotonic()
        assert wait_for(lambda: _refused_write(lab, node), "the minority's refusal", 10)
        read = lab.get(node, "/app?limit=1", 5.0)
        assert read is not None
        assert read.status_code == 200
        status = lab.get(node, "/cluster/status", 5.0)
        assert status is not None
        assert status.json()["leader"] is None
        next_write(work, cut_at)
        network.heal(node.host)
        wait_for(lambda: lab.leader([node]), "the healed node's leader", 15)


def test_a_write_that_was_committed_and_never_answered_is_answered_by_its_repeat(
    lab: Lab, under_load: UnderLoad
) -> None:
    with under_load() as work:
        leader = lab.wait_for_leader()
        leader.arm("after_commit_before_reply", "killnode")
        wait_for(lambda: not leader.alive, "the leader's death", 20, every_s=0.005)
        died_at = time.monotonic()
        next_write(work, died_at)
    assert any(one.replayed for op in work.ops for one in op.tries) or any(op.verdict == "unknown" for op in work.ops)


def test_a_new_leader_that_dies_before_it_serves_is_followed_by_another(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        leader = lab.wait_for_leader()
        others = [node for node in lab.nodes if node is not leader]
        for node in others:
            node.arm("claimed_before_serve", "killnode")
        leader.freeze()
        died = wait_for(lambda: next((node for node in others if not node.alive), None), "its death", 20)
        for node in others:
            node.disarm()
        leader.thaw()
        assert died is not None
        next_write(work, time.monotonic())


def test_every_member_may_be_killed_in_turn(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        for node in lab.nodes:
            node.kill()
            next_write(work, time.monotonic())
            node.start()
            wait_for(lambda node=node: _ready(lab, node), "its return", 60)


def _ready(lab: Lab, node: LabNode) -> bool:
    answer = lab.get(node, "/health/ready")
    return answer is not None and answer.status_code == 200


def test_leadership_is_handed_over_without_a_refusal(lab: Lab, under_load: UnderLoad) -> None:
    with under_load() as work:
        before = lab.wait_for_leader()
        asked_at = time.monotonic()
        answer = lab.post(before, "/cluster/transfer", None, 10.0)
        assert answer is not None
        assert answer.status_code in (200, 202), answer.text
        assert lab.wait_for_leader(but=before) is not before
        next_write(work, asked_at)
    refused = [one for op in work.ops for one in op.tries if one.start > asked_at and one.status == 503]
    assert refused == []
