"""Three minutes of random faults under load; the seed is printed, OMNI_TEST_SEED replays it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.conftest import judged
from tests.cluster.lab import Lab, settle
from tests.cluster.run import chaos

pytestmark = [pytest.mark.story, pytest.mark.slow]


def test_three_minutes_of_faults_break_no_promise(lab: Lab, seed: int, tmp_path: Path) -> None:
    settle(lab)
    seconds = float(os.environ.get("OMNI_TEST_CHAOS_S", "180"))
    print(f"OMNI_TEST_SEED={seed}")
    demands = {"acknowledged": 300, "leader_changes": 3, "fence_refusals": 1, "no_leader": 1, "forwarded": 50}
    outcome = chaos(lab, seed, seconds, print, **demands)
    judged(lab, outcome, tmp_path)
