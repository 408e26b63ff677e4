"""Rules of the whole agent, with real processes and a control plane that keeps count."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from agent.conftest import AgentUnderTest
from agent.fake_plane import FakePlane, assignment
from agent.protocol import HealthCheck
from agent.runtimes import watcher
from sandbox.probe import probe

pytestmark = pytest.mark.slow

COUNTER = rb"""
import itertools, os, sys, time
for n in itertools.count():
    os.write(1, b"out %d\n" % n)
    os.write(2, b"err %d\n" % n)
    if n % 50 == 0:
        time.sleep(0.01)
"""
SERVER = rb"""
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if os.path.exists(os.environ["HOME"] + "/sick") else 200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
NOTHING = {"empty": b""}


def pid_of(agent: AgentUnderTest, instance_id: int) -> int:
    """Its watcher's pid; 0 in the moment before the next start."""
    handle = watcher.read_handle(agent.instances / str(instance_id))
    return 0 if handle is None else int(handle["pid"])


def alive(agent: AgentUnderTest) -> dict[int, set[int]]:
    from agent.config import platform_of

    return watcher.labelled(platform_of(agent.instances))


def test_an_instance_finds_what_it_was_promised(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release({"file": b"hello"}, version="v1.2")
    line = 'cat file; echo "$PORT $OMNI_APP $OMNI_INSTANCE_ID $OMNI_RELEASE $COLOUR"; echo x > ~/kept; (echo y > here)'
    plane.want(assignment(5, release, f"{line}; sleep 1000", env={"COLOUR": "bl'ue", "PORT": "1"}))
    observed = plane.status(5, "running")
    assert observed.health == "healthy"
    port = str(observed.address).rpartition(":")[2]
    plane.wait(lambda: len(plane.texts(5, 0)) >= 1 and plane.texts(5, 1))
    assert plane.texts(5, 0) == [f"hello{port} hello 5 v1.2 bl'ue"]
    if probe().isolation == "bubblewrap":
        assert "ead-only" in plane.texts(5, 1)[0]
    assert (agent.instances / "5" / "home" / "kept").read_text() == "x\n"
    plane.wait(lambda: [s for each in plane.samples for s in each["samples"] if s["cpu_percent"] is not None])
    assert plane.facts is not None


def test_removal_leaves_no_process_and_no_file(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    plane.want(assignment(1, release, "echo hi; setsid sleep 1000 & sleep 1000"))
    plane.status(1, "running")
    plane.want(assignment(1, release, "x", desired="remove"))
    plane.wait(lambda: 1 in plane.gone)
    assert plane.texts(1)[0] == "hi"
    assert [each.status for each in plane.history[1]][-2:] == ["stopping", "stopped"]
    assert not alive(agent)
    assert not (agent.instances / "1").exists()
    plane.wait(lambda: not (agent.instances / "trees" / release.package).exists())


def test_a_crash_is_told_with_evidence_and_restarted_in_place(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    check = HealthCheck(type="process", interval_s=0.1)
    plane.want(assignment(1, plane.release(NOTHING), "echo begin; sleep 1.5; echo why >&2; exit 7", health_check=check))
    plane.status(1, "running")
    crashed = plane.status(1, "crashed")
    assert crashed.last_exit is not None
    assert (crashed.last_exit.code, crashed.last_exit.signal, crashed.last_exit.oom) == (7, None, False)
    assert crashed.last_exit.lines == ["begin", "why"]
    assert crashed.next_start_at is not None
    plane.wait(lambda: plane.observed[1].restarts >= 1 and plane.observed[1].status == "running")


def test_ends_before_the_first_healthy_moment_fail_it(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "echo broken >&2; exit 3", health_check=HealthCheck(type="tcp")))
    failed = plane.status(1, "failed", seconds=20)
    assert failed.last_exit is not None
    assert failed.last_exit.lines == ["broken"]
    assert "3 times" in failed.detail


def test_want_of_memory_is_told_apart(plane: FakePlane, agent: AgentUnderTest):
    if probe().limits == "none":
        pytest.skip("no cgroups here")
    agent.start()
    command = 'python3 -c "import time; time.sleep(1.5); b = bytearray(200 * 2**20)"'
    plane.want(assignment(1, plane.release(NOTHING), command, memory_mb=32))
    crashed = plane.status(1, "crashed", "failed")
    assert crashed.last_exit is not None
    assert crashed.last_exit.oom
    assert "memory" in crashed.detail


def test_a_program_that_ignores_term_is_killed_with_all_its_children(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    command = "trap '' TERM; setsid sh -c 'setsid sleep 1000 & sleep 1000' & sleep 1000; sleep 1000"
    plane.want(assignment(1, release, command, stop_timeout_s=1.0))
    plane.status(1, "running")
    before = time.monotonic()
    plane.want(assignment(1, release, command, stop_timeout_s=1.0, desired="stop"))
    stopped = plane.status(1, "stopped")
    assert 1.0 <= time.monotonic() - before < 6.0
    assert stopped.last_exit is not None
    assert stopped.last_exit.signal == 9
    assert not alive(agent)


def test_term_reaches_what_a_shell_started(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(
        {
            "p.py": b"import signal,sys,time\nsignal.signal(15, lambda *_: (print('bye', flush=True), "
            b"sys.exit(0)))\nprint('up', flush=True)\ntime.sleep(1000)\n"
        }
    )
    command = "while true; do python3 p.py; done"
    plane.want(assignment(1, release, command))
    plane.wait(lambda: "up" in plane.texts(1))
    before = time.monotonic()
    plane.want(assignment(1, release, command, desired="stop", stop_timeout_s=8.0))
    plane.status(1, "stopped")
    assert time.monotonic() - before < 4.0
    plane.wait(lambda: "bye" in plane.texts(1))


def test_an_agent_killed_and_restarted_restarts_nothing_and_loses_no_line(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release({"count.py": COUNTER}), "python3 count.py"))
    plane.status(1, "running")
    pid = pid_of(agent, 1)
    for _ in range(4):
        shipped = len(plane.texts(1))
        plane.wait(lambda at=shipped: len(plane.texts(1)) > at + 200)
        plane.log_faults = 1  # one answer is lost, too
        agent.end(signal.SIGKILL)
        agent.start()
    shipped = len(plane.texts(1))
    plane.wait(lambda: len(plane.texts(1)) > shipped + 2000)
    assert pid_of(agent, 1) == pid
    assert plane.observed[1].restarts == 0
    assert len(plane.incarnations) == 5
    for which, name in ((0, "out"), (1, "err")):
        texts = plane.texts(1, which)
        assert texts == [f"{name} {number}" for number in range(len(texts))]
    assert plane.gaps == []


def test_an_end_while_no_agent_lived_is_learnt_with_its_code(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "while [ ! -f ~/go ]; do sleep 0.05; done; echo last; exit 9"))
    plane.status(1, "running")
    pid = pid_of(agent, 1)
    agent.end(signal.SIGKILL)
    (agent.instances / "1" / "home" / "go").touch()
    plane.wait(lambda: not Path(f"/proc/{pid}").exists())
    agent.start()
    crashed = plane.status(1, "crashed")
    assert crashed.last_exit is not None
    assert crashed.last_exit.code == 9
    plane.wait(lambda: "last" in plane.texts(1))


def test_sigterm_ends_the_agent_and_no_instance(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000"))
    plane.status(1, "running")
    before = time.monotonic()
    agent.end(signal.SIGTERM)
    assert time.monotonic() - before < 3
    assert list(alive(agent)) == [1]


def test_sweep_ends_everything_politely_first(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    polite = "trap 'echo bye > ~/said; exit 0' TERM; while true; do sleep 0.05; done"
    plane.want(
        assignment(1, release, polite),
        assignment(2, release, "trap '' TERM; setsid sleep 1000 & while true; do sleep 1; done"),
        assignment(3, release, "sleep 1000"),
    )
    for number in (1, 2, 3):
        plane.status(number, "running")
    agent.end(signal.SIGKILL)
    assert sorted(alive(agent)) == [1, 2, 3]
    agent.sweep()
    assert not alive(agent)
    assert (agent.instances / "1" / "home" / "said").exists()
    agent.start()
    plane.wait(lambda: all(plane.observed[number].restarts == 1 for number in (1, 2, 3)))
    assert all(each.status != "crashed" for number in (1, 2, 3) for each in plane.history[number])


def test_a_flood_is_bounded_counted_and_silences_nobody(plane: FakePlane, agent: AgentUnderTest, tmp_path: Path):
    agent.end()
    flooded = AgentUnderTest(plane, tmp_path, (44900, 44940), log_max_bytes=4 << 20, log_lines_per_s=2000.0)
    flooded.start()
    try:
        release = plane.release({"count.py": b"import itertools\nfor n in itertools.count(): print('flood', n)\n"})
        plane.want(
            assignment(1, release, "python3 count.py"),
            assignment(2, release, "while true; do echo calm; sleep 0.1; done"),
        )
        plane.wait(lambda: any("dropped" in text for text in plane.texts(1)), 30)
        calm = len(plane.texts(2))
        plane.wait(lambda: len(plane.texts(2)) > calm + 10, 10)
        plane.wait(lambda: sum("dropped" in text for text in plane.texts(1)) >= 2, 30)
        stored = plane.texts(1)
        assert flooded.process is not None
        rss = int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{flooded.process.pid}/status").read_text())[0])
        assert rss < 60 * 1024
        blocks = sum(path.stat().st_blocks * 512 for path in (flooded.instances / "1").glob("*.log"))
        assert blocks < 64 << 20
        expected = 0
        for text in stored:  # every line is either there or counted
            note = re.fullmatch(r"\[omni\] (\d+) lines dropped.*", text)
            if note:
                expected += int(note[1])
            elif text == f"flood {expected}":
                expected += 1
            else:
                raise AssertionError(f"{text!r} where {expected} was due")
    finally:
        flooded.end(signal.SIGKILL)
        flooded.sweep()


def test_without_a_control_plane_everything_goes_on(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    check = HealthCheck(type="process", interval_s=0.1)
    command = "echo start; while [ ! -f ~/die ]; do sleep 0.05; done; rm ~/die; exit 1"
    plane.want(assignment(1, plane.release(NOTHING), command, health_check=check))
    plane.status(1, "running")
    plane.down = True
    agent.end(signal.SIGKILL)
    agent.start()
    pid = pid_of(agent, 1)
    (agent.instances / "1" / "home" / "die").touch()
    plane.wait(lambda: pid_of(agent, 1) not in (0, pid))
    plane.down = False
    plane.wait(lambda: plane.observed[1].restarts == 1 and plane.observed[1].status == "running")
    plane.wait(lambda: plane.texts(1) == ["start", "start"])


def test_http_checks_follow_the_answers(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    check = HealthCheck(type="http", path="/up", interval_s=0.1, unhealthy_threshold=2)
    plane.want(assignment(1, plane.release({"s.py": SERVER}), "sleep 0.5; python3 s.py", health_check=check))
    assert plane.status(1, "running").health == "healthy"
    (agent.instances / "1" / "home" / "sick").touch()
    plane.wait(lambda: plane.observed[1].health == "unhealthy")
    assert "500" in plane.observed[1].detail
    (agent.instances / "1" / "home" / "sick").unlink()
    plane.wait(lambda: plane.observed[1].health == "healthy")


def test_exec_checks_run_where_the_program_runs(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    check = HealthCheck(type="exec", command="test -f ~/ok", interval_s=0.1)
    plane.want(assignment(1, plane.release(NOTHING), "sleep 0.5; touch ~/ok; sleep 1000", health_check=check))
    plane.status(1, "starting")
    plane.status(1, "running")


def test_a_port_never_bound_is_told_after_the_start_period(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    check = HealthCheck(type="tcp", start_period_s=0.6)
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000", health_check=check))
    plane.wait(lambda: 1 in plane.observed and plane.observed[1].health == "unhealthy")
    assert plane.observed[1].status == "starting"
    assert "not healthy within" in plane.observed[1].detail


def test_restart_asked_for_happens_in_place(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    plane.want(assignment(1, release, "sleep 1000"))
    first = plane.status(1, "running")
    plane.want(assignment(1, release, "sleep 1000", generation=1))
    plane.wait(lambda: plane.observed[1].generation == 1 and plane.observed[1].status == "running")
    assert plane.observed[1].started_at != first.started_at
    assert plane.observed[1].address == first.address


def test_older_and_foreign_lists_change_nothing(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    plane.want(assignment(1, release, "sleep 1000"))
    plane.status(1, "running")
    pid = pid_of(agent, 1)
    plane.wanted.clear()
    plane.epoch, plane.index = 0, 9999  # an older leader's list, and an empty one
    plane.wait(lambda: "older than" in agent.log.read_text())
    plane.epoch, plane.cluster_id = 2, "another"
    plane.wait(lambda: "list of cluster" in agent.log.read_text())
    assert pid_of(agent, 1) == pid
    assert list(alive(agent)) == [1]


def test_after_a_restore_everything_is_told_again_and_nothing_restarted(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000"))
    plane.status(1, "running")
    pid = pid_of(agent, 1)
    plane.observed.clear()  # an older database: what was acknowledged is forgotten, and its index is lower
    plane.epoch, plane.index = plane.epoch + 1_000, 1
    plane.want()
    assert plane.status(1, "running").address
    assert pid_of(agent, 1) == pid


def test_an_instance_of_another_database_is_never_taken_for_one_of_the_same_number(
    plane: FakePlane, agent: AgentUnderTest
):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000"))
    plane.status(1, "running")
    pid = pid_of(agent, 1)
    told = len(plane.history[1])
    plane.want(assignment(1, plane.release({"other": b""}), "sleep 2000", app_id=77))
    plane.wait(lambda: pid_of(agent, 1) not in (0, pid) and plane.status(1, "running"), 20)
    assert "stopped" not in [observed.status for observed in plane.history[1][told:]]
    assert 1 not in plane.gone


def test_what_no_list_knows_is_swept(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release(NOTHING)
    plane.want(assignment(1, release, "sleep 1000"), assignment(2, release, "sleep 1000"))
    plane.status(1, "running")
    plane.status(2, "running")
    plane.unwant(1)
    plane.wait(lambda: 1 in plane.gone)
    plane.unknown.add(2)
    plane.wait(lambda: 2 in plane.gone)
    assert not alive(agent)


def test_processes_whose_record_is_lost_are_ended(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000"))
    plane.status(1, "running")
    agent.end(signal.SIGKILL)
    (agent.instances / "1" / "state.json").write_text("{")
    plane.unwant(1)
    agent.start()
    plane.wait(lambda: not alive(agent), 20)


def test_a_damaged_package_is_not_unpacked_and_fetched_again(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    release = plane.release({"f": b"good"})
    good, plane.packages[release.package] = plane.packages[release.package], b"x" * release.package_size
    plane.want(assignment(1, release, "cat f; sleep 1000"))
    plane.wait(lambda: 1 in plane.observed and "damaged" in plane.observed[1].detail)
    plane.packages[release.package] = good
    plane.status(1, "running")


def test_a_runtime_that_the_node_lacks_is_refused(plane: FakePlane, agent: AgentUnderTest):
    agent.start()
    plane.want(assignment(1, plane.release(NOTHING), "sleep 1000", runtime="steam"))
    assert "no runtime 'steam'" in plane.status(1, "failed").detail


def test_the_agent_goes_to_another_member_when_its_own_is_silent(plane: FakePlane, tmp_path: Path):
    made = AgentUnderTest(plane, tmp_path, (44800, 44840), control_plane=["http://127.0.0.1:9", plane.url])
    made.start()
    try:
        plane.want(assignment(1, plane.release(NOTHING), "sleep 1000"))
        plane.status(1, "running")
    finally:
        made.end(signal.SIGKILL)
        made.sweep()
