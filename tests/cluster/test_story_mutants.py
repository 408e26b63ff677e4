"""The proof proves something: with a planted defect in the real processes the checker must find it."""

from __future__ import annotations

import time

import pytest

from tests.cluster.checker import Case, check, report
from tests.cluster.lab import Lab, Shape
from tests.cluster.test_story_takeover import ROUNDS, freeze_at, new_write
from tests.cluster.workload import Pace, Workload

pytestmark = [pytest.mark.story, pytest.mark.slow]


def _rules(lab: Lab, work: Workload) -> set[str]:
    violations = check(Case.of(work.ops, lab.evidence(), principal=lab.principal))
    print(report(violations))
    return {violation.rule for violation in violations}


def test_without_the_fence_a_frozen_leader_that_wakes_up_is_caught(namespaces: None) -> None:
    with Lab(Shape(members=3, mutant="no_fence")) as lab:
        lab.start()
        work = Workload([node.url for node in lab.nodes], lab.token, 1, Pace(pause_s=0.05))
        found: set[str] = set()
        with work:
            for _ in range(ROUNDS):
                work.wait_for_writes(10)
                leader = lab.wait_for_leader()
                freeze_at(leader, "before_fence")
                new_write(lab)
                leader.thaw()
                time.sleep(1.0)
                found = _rules(lab, work) & {"epochs_only_rise"}
                if found:
                    break
        assert found == {"epochs_only_rise"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("mutant", "rule"),
    [
        ("early_ack", "acknowledged_writes_are_there"),
        ("no_conditions", "conditions_were_met"),
        ("no_keys", "keys_apply_once"),
    ],
)
def test_a_planted_defect_is_found(namespaces: None, mutant: str, rule: str) -> None:
    with Lab(Shape(members=1, mutant=mutant)) as lab:
        lab.start()
        work = Workload([node.url for node in lab.nodes], lab.token, 1, Pace(pause_s=0.05, repeats=0.3))
        with work:
            work.wait_for_writes(150, 60)
        assert rule in _rules(lab, work)
