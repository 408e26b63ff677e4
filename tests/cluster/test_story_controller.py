"""What the leader does by itself stays right when leadership moves in the middle of it."""

from __future__ import annotations

import time

import pytest

from tests.cluster.conftest import UnderLoad
from tests.cluster.lab import Lab
from tests.cluster.run import deployed
from tests.running_platform import Api, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


def test_a_tick_that_began_under_an_old_term_writes_nothing(lab: Lab, seed: int, under_load: UnderLoad) -> None:
    """It sleeps between its plan and its write, while leadership goes away and comes back to the same member."""
    with under_load():
        name = deployed(lab, f"tick-{seed}", 1)
        leader = lab.wait_for_leader()
        api = Api(leader.url, lab.token)
        leader.arm("planned_before_write", "sleep 6")
        api.ok("POST", f"/app/{name}/scale", {"instances": 3})
        wait_for(lambda: leader.hits("planned_before_write"), "a plan", 20)
        asleep_since = time.monotonic()
        other = next(node for node in lab.nodes if node is not leader)
        api.ok("POST", "/cluster/transfer", {"to": other.name})
        assert lab.wait_for_leader(but=leader) is other
        Api(other.url, lab.token).ok("POST", "/cluster/transfer", {"to": leader.name})
        assert lab.wait_for_leader(but=other) is leader
        time.sleep(max(0.0, asleep_since + 7.0 - time.monotonic()))
        Api(other.url, lab.token).healthy(name, 3)


def test_instances_outlive_every_process_of_the_control_plane(lab: Lab, seed: int, under_load: UnderLoad) -> None:
    with under_load():
        name = deployed(lab, f"outliving-{seed}", 2)
        before = _restarts(lab, name)
        for node in lab.nodes:
            node.kill()
        for node in lab.nodes:
            node.start()
        wait_for(lab.all_ready, "every node's return", 90)
        Api(lab.nodes[0].url, lab.token).healthy(name, 2)
        assert _restarts(lab, name) == before


def _restarts(lab: Lab, name: str) -> dict[int, int]:
    rows = Api(lab.nodes[0].url, lab.token).ok("GET", f"/app/{name}/instances?status=running")["items"]
    return {row["id"]: row["restarts"] for row in rows}
