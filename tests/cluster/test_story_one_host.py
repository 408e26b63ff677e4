"""The cluster as it is shipped, on one host with SQLite: two minutes of kills and freezes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.conftest import judged
from tests.cluster.lab import Shape
from tests.cluster.one_host import OneHostLab
from tests.cluster.run import chaos

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]


def test_faults_on_one_host_break_no_promise(seed: int, tmp_path: Path) -> None:
    print(f"OMNI_TEST_SEED={seed}")
    with OneHostLab(Shape(members=4, services=("worker",))) as lab:
        lab.start()
        outcome = chaos(lab, seed, 120, print, acknowledged=200, leader_changes=3, forwarded=50)
        judged(lab, outcome, tmp_path)
        lab.stop()
        assert lab.left_over() == []
