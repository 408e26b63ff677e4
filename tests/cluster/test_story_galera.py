"""On a Galera cluster of three a database server may die under the leader, and no acknowledged write with it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import judged
from tests.cluster.galera import GaleraCluster
from tests.cluster.lab import Lab, Shape, settle
from tests.cluster.run import judge
from tests.cluster.test_story_takeover import freeze_at, next_write
from tests.cluster.workload import Pace, Workload
from tests.running_platform import wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def lab(namespaces: None) -> Iterator[Lab]:
    with Lab(Shape(members=3), GaleraCluster.of_lab(3)) as running:
        yield running.start()
        running.stop()
        assert running.left_over() == []


def test_a_database_server_killed_under_the_leader_takes_no_acknowledged_write_along(
    lab: Lab, seed: int, tmp_path: Path
) -> None:
    work = Workload([node.url for node in lab.nodes], lab.token, seed, Pace(pause_s=0.1))
    with work:
        work.wait_for_writes(20)
        for _ in range(len(lab.database.nodes)):
            leader = lab.wait_for_leader()
            server = lab.database.server_of(leader.host.address)
            assert server is not None
            server.end(signal.SIGKILL)
            killed_at = time.monotonic()
            write = next_write(work, killed_at, 30)
            print(f"database server killed → next acknowledged write {write.end - killed_at:.2f} s")
            work.wait_for_writes(20)
            lab.database.heal()
            settle(lab)
    judged(lab, judge(lab, work), tmp_path)


def test_a_frozen_leader_that_wakes_up_on_another_server_is_refused(lab: Lab, seed: int, tmp_path: Path) -> None:
    """The deposed leader's transaction and the next claim meet on different servers: certification decides."""
    work = Workload([node.url for node in lab.nodes], lab.token, seed, Pace(pause_s=0.1))
    with work:
        for _ in range(3):
            work.wait_for_writes(20)
            leader = lab.wait_for_leader()
            freeze_at(leader, "before_fence")
            epoch = lab.epoch()
            wait_for(lambda before=epoch: lab.epoch() > before, "the next claim", 15, every_s=0.01)
            leader.thaw()
            settle(lab)
    judged(lab, judge(lab, work), tmp_path)
