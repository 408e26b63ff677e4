"""A singleton runs under its node's lease and ends with it, whatever became of the agent."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from agent import fencing
from agent.conftest import AgentUnderTest
from agent.fake_plane import FakePlane, assignment
from agent.test_agent import NOTHING, alive, pid_of

pytestmark = pytest.mark.slow

LEASE_S = 1.5
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


@pytest.fixture
def quick(agent: AgentUnderTest) -> AgentUnderTest:
    """The agent with a short lease."""
    config = json.loads(agent.config.read_text())
    agent.config.write_text(json.dumps({**config, "lease_s": LEASE_S}))
    return agent


def keepers(agent: AgentUnderTest) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "agent.keeper" in words and str(agent.config) in words:
            found.append(process.pid)
    return found


def start_both(plane: FakePlane, agent: AgentUnderTest, command: str = "sleep 1000") -> None:
    """Instance 1, a singleton, and instance 2, which is none."""
    agent.start()
    release = plane.release(NOTHING)
    plane.want(assignment(1, release, command, singleton=True, stop_timeout_s=1.0), assignment(2, release, "sleep 999"))
    plane.status(1, "running")
    plane.status(2, "running")


def ends(plane: FakePlane, agent: AgentUnderTest, within_s: float) -> float:
    """Waits for the singleton's end; how long it took."""
    begun = time.monotonic()
    plane.wait(lambda: 1 not in alive(agent), within_s, "the singleton's end")
    return time.monotonic() - begun


def test_without_a_leader_only_the_singleton_ends_and_it_comes_back(plane: FakePlane, quick: AgentUnderTest) -> None:
    start_both(plane, quick)
    other = pid_of(quick, 2)
    plane.down = True
    ends(plane, quick, LEASE_S + 3)
    assert pid_of(quick, 2) == other
    time.sleep(LEASE_S)  # it must not come back by itself, and that can only be seen by waiting
    assert 1 not in alive(quick)
    told = len(plane.history[1])
    plane.down = False
    plane.wait(lambda: plane.observed[1].status == "running" and plane.observed[1].restarts == 1, 20)
    assert "crashed" not in [observed.status for observed in plane.history[1][told:]]
    assert pid_of(quick, 2) == other


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_an_agent_that_can_do_nothing_does_not_keep_a_singleton_alive(
    plane: FakePlane, quick: AgentUnderTest, number: signal.Signals
) -> None:
    start_both(plane, quick)
    assert quick.process is not None
    os.kill(quick.process.pid, number)
    assert ends(plane, quick, LEASE_S + 3) > 0.1
    assert 2 in alive(quick)
    if number == signal.SIGSTOP:
        os.kill(quick.process.pid, signal.SIGCONT)
    else:
        quick.process.wait(5)
        quick.start()
    plane.wait(lambda: 1 in alive(quick), 20, "its return under a new lease")


def test_one_that_ignores_sigterm_is_killed_after_its_stop_timeout(plane: FakePlane, quick: AgentUnderTest) -> None:
    start_both(plane, quick, STUBBORN)
    plane.down = True
    assert ends(plane, quick, LEASE_S + 5) >= 1.0


def test_the_keeper_is_replaced_while_it_is_needed_and_goes_when_it_is_not(
    plane: FakePlane, quick: AgentUnderTest
) -> None:
    start_both(plane, quick)
    (keeper,) = plane.wait(lambda: keepers(quick), 5)
    os.kill(keeper, signal.SIGKILL)
    plane.wait(lambda: [pid for pid in keepers(quick) if pid != keeper], 10, "another keeper")
    plane.unwant(1)
    plane.wait(lambda: 1 in plane.gone)
    plane.wait(lambda: not keepers(quick), 10, "the keeper's end")


def test_a_lease_of_another_boot_or_of_nobody_is_none(tmp_path: Path) -> None:
    file = tmp_path / fencing.LEASE
    assert fencing.until(file) == 0.0
    file.write_text('{"boot_id": "another", "until": 1e12}')
    assert fencing.until(file) == 0.0
    file.write_text("{")
    assert fencing.until(file) == 0.0


def test_the_lease_counts_from_the_moment_of_sending(tmp_path: Path) -> None:
    lease = fencing.Lease(tmp_path, 5.0)
    assert not lease.held
    sent = time.monotonic()
    lease.need()
    lease.renewed(sent)
    assert fencing.until(tmp_path / fencing.LEASE) == sent + 5.0
    lease.renewed(sent - 1)  # an answer that came late takes nothing away
    assert fencing.until(tmp_path / fencing.LEASE) == sent + 5.0
    assert fencing.Lease(tmp_path, 5.0).held, "an agent that restarts goes on under it"
