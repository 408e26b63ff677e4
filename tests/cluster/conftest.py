"""One cluster for all stories here; each leaves it healed."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from omni.testing.hosts import NoNamespaces, refuse_where_forbidden
from tests.cluster.lab import Lab, Shape, settle
from tests.cluster.run import Outcome, judge, keep
from tests.cluster.workload import Pace, Workload

UnderLoad = Callable[[], AbstractContextManager[Workload]]


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips with the reason where they are forbidden; in CI that is a failure."""
    try:
        refuse_where_forbidden()
    except NoNamespaces as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session", autouse=True)
def ended_in_good_order() -> None:
    """A run that is told to end takes its namespaces and mounts down first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab(namespaces: None) -> Iterator[Lab]:
    quick = {"timings": {"drain_s": 2.0}}  # nothing here has open requests
    with Lab(Shape(members=3, services=("worker",), clocks=True, small_disks=True, keys=quick)) as running:
        yield running.start()
        running.stop()
        assert running.left_over() == []


@pytest.fixture
def seed() -> int:
    """Of this test; OMNI_TEST_SEED replays one."""
    return int(os.environ.get("OMNI_TEST_SEED") or random.SystemRandom().randrange(1, 1 << 30))


@pytest.fixture
def under_load(lab: Lab, seed: int, tmp_path: Path) -> UnderLoad:
    """Clients that write all the while; afterwards everything is healed and judged."""

    @contextmanager
    def loaded() -> Iterator[Workload]:
        print(f"OMNI_TEST_SEED={seed}")
        settle(lab)
        work = Workload([node.url for node in lab.nodes], lab.token, seed, Pace(pause_s=0.1))
        try:
            with work:
                work.wait_for_writes(5)
                yield work
                lab.heal()
                settle(lab)
                work.wait_for_writes(5)
        finally:
            lab.heal()
        judged(lab, judge(lab, work), tmp_path)

    return loaded


def judged(lab: Lab, outcome: Outcome, folder: Path) -> None:
    """Fails with the report when a promise was broken or the run proves nothing."""
    print(outcome)
    if outcome.violations or outcome.void:
        kept = keep(lab, outcome, folder / "run")
        pytest.fail(f"OMNI_TEST_SEED={outcome.seed}; kept in {kept}\n{outcome}", pytrace=False)
