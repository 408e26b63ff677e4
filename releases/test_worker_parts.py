"""The worker's parts, one by one: fail-over, leases, the log, and reading what the control plane says."""

import hashlib
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from releases import log_stream, worker_sweep
from releases.build_errors import BuildStopped
from releases.build_sandbox import _Lines
from releases.contract import Failure, Outcome, Package, Renewed, Step, claim_from, renewed_from
from releases.disk_use import bytes_below, remove_tree
from releases.fake_plane import Plane, Server
from releases.lease import LeaseKeeper, Steps, Stop
from releases.log_stream import LogStream, clean
from releases.worker_client import (
    ControlPlane,
    Damaged,
    LeaseLost,
    NotClaimable,
    Refused,
    Unreachable,
    WorkerClientError,
)

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease of the control plane is needed here: nothing is written."""


# --- the client


def test_a_dead_member_is_passed_over_and_not_asked_first_again() -> None:
    plane = Plane(artifact=b"x")
    with Server(Plane()) as dead:
        pass
    with Server(plane) as url, ControlPlane([dead, url], "token") as client:
        assert client.claim(1, "w", 5).app == "shop"
        assert client._members[0] == url


def test_an_answer_is_waited_for_while_nobody_leads_and_not_longer() -> None:
    plane = Plane(artifact=b"x")
    plane.unavailable_until = time.monotonic() + 0.5
    with Server(plane) as url, ControlPlane([url], "token") as client:
        client.claim(1, "w", 5)
        plane.unavailable_until = time.monotonic() + 60
        started = time.monotonic()
        with pytest.raises(Unreachable, match="503 no_leader"):
            client.heartbeat(1, "t", "", [], 0.5)
        assert time.monotonic() - started < 5


def test_no_is_not_the_same_as_no_answer() -> None:
    plane = Plane(artifact=b"x")
    with Server(plane) as url, ControlPlane([url], "token") as client:
        client.claim(1, "w", 5)
        with pytest.raises(NotClaimable):
            client.claim(1, "w", 5)
        plane.lost = True
        with pytest.raises(LeaseLost):
            client.heartbeat(1, "t", "", [], 5)
        with pytest.raises(Refused, match="404 not_found"):
            client.fetch_artifact("0" * 64, 1, Path("/dev/null"), 5)
        plane.mute = True
        with pytest.raises(Unreachable):
            client.heartbeat(1, "t", "", [], 0.2)


def test_an_artifact_that_is_not_what_it_should_be_is_refused(tmp_path: Path) -> None:
    plane = Plane(artifact=b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    with Server(plane) as url, ControlPlane([url], "token") as client:
        client.fetch_artifact(sha256, 7, tmp_path / "a", 5)
        assert (tmp_path / "a").read_bytes() == b"content"
        with pytest.raises(Damaged, match="longer"):
            client.fetch_artifact(sha256, 3, tmp_path / "a", 5)
        with pytest.raises(Unreachable, match="ended after 7 of 9"):
            client.fetch_artifact(sha256, 9, tmp_path / "a", 0.2)


def test_a_package_arrives_whole_and_a_stop_ends_the_sending(tmp_path: Path) -> None:
    plane = Plane()
    data = bytes(range(256)) * 4000
    (tmp_path / "p").write_bytes(data)
    package = Package(hashlib.sha256(data).hexdigest(), len(data))
    stop = Stop()
    with Server(plane) as url, ControlPlane([url], "token") as client:
        client.put_package(1, "t", package, tmp_path / "p", 5)
        assert plane.packages == {package.sha256: data}
        with pytest.raises(Refused, match="digest_mismatch"):
            client.put_package(1, "t", Package("0" * 64, len(data)), tmp_path / "p", 5)
        stop.order("cancelled")
        with pytest.raises(BuildStopped):
            client.put_package(1, "t", package, tmp_path / "p", 5, stop.check)


# --- the lease


class Heart:
    """Answers heartbeats from a list; an exception in it is raised; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[Step, ...]]] = []
        self.beat = threading.Condition()

    def heartbeat(self, build_id: int, token: str, builder: str, steps: tuple[Step, ...], within_s: float) -> Renewed:
        with self.beat:
            self.asked.append((builder, steps))
            self.beat.notify_all()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Renewed)
        return answer

    def wait_for(self, beats: int) -> None:
        with self.beat:
            assert self.beat.wait_for(lambda: len(self.asked) >= beats, 5)


def keeper(heart: Heart, stop: Stop, lease_s: float = 30.0, interval_s: float = 0.02) -> tuple[LeaseKeeper, Steps]:
    steps = Steps()
    claim = claim_from({**Plane(artifact=b"x").claim_for(1), "lease_s": lease_s})
    return LeaseKeeper(heart, claim, steps, stop, interval_s), steps


def ordered(stop: Stop) -> Any:
    end = time.monotonic() + 5
    while not stop.ordered() and time.monotonic() < end:
        time.sleep(0.005)
    return stop.reason


def test_a_cancel_is_heard_and_the_lease_goes_on_being_kept() -> None:
    heart, stop = Heart(Renewed(30, False), Renewed(30, True)), Stop()
    keeping, _ = keeper(heart, stop)
    with keeping:
        assert ordered(stop) == "cancelled"
        heart.wait_for(5)


@pytest.mark.parametrize("answer", [LeaseLost(409, "lease_lost", ""), Unreachable("nobody"), Refused(500, "x", "")])
def test_a_lost_lease_orders_the_stop(answer: WorkerClientError) -> None:
    stop = Stop()
    keeping, _ = keeper(Heart(answer), stop, lease_s=0.2)
    with keeping:
        assert ordered(stop) == "lease_lost"


def test_silence_within_the_lease_stops_nothing() -> None:
    heart, stop = Heart(Unreachable("nobody"), Renewed(30, False)), Stop()
    keeping, _ = keeper(heart, stop)
    with keeping:
        heart.wait_for(3)
        assert not stop.ordered()
        assert keeping.left_s() > 25


def test_a_step_is_told_at_once() -> None:
    heart, stop = Heart(Renewed(30, False)), Stop()
    keeping, steps = keeper(heart, stop, interval_s=60)
    with keeping:
        heart.wait_for(1)
        steps.started("fetch")
        keeping.tell()
        heart.wait_for(2)
    assert [step.status for step in heart.asked[1][1]] == ["running"]


def test_an_end_is_heard_whenever_it_comes() -> None:
    """Also between two looks of the keeper's own thread: it slept on, and the build with it for up to 5 s."""
    heart = Heart(Renewed(30, False))
    keeping, _ = keeper(heart, Stop(), interval_s=60)

    class EndsMeanwhile(threading.Event):
        def clear(self) -> None:
            if heart.asked:
                keeping._over.set()
                self.set()
            super().clear()

    keeping._wake = EndsMeanwhile()
    keeping._thread.start()
    heart.wait_for(1)
    keeping.tell()
    keeping._thread.join(5)
    assert not keeping._thread.is_alive()


def test_the_first_order_to_stop_counts() -> None:
    stop = Stop()
    stop.check()
    stop.order("cancelled")
    stop.order("lease_lost")
    with pytest.raises(BuildStopped, match="cancelled"):
        stop.check()


# --- the log


class Taker:
    """Takes log batches; fails as often as it is told to."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures, self.error = failures, error or Unreachable("nobody")
        self.lines: dict[int, str] = {}
        self.batches = 0

    def __call__(self, first_seq: int, lines: list[list[Any]]) -> None:
        self.batches += 1
        for number, (_, _, text) in enumerate(lines, first_seq):
            assert self.lines.setdefault(number, text) == text, "a repeated sequence carries the same line"
        if self.failures:
            self.failures -= 1
            raise self.error


def test_every_line_arrives_once_and_in_order_over_failures() -> None:
    taker = Taker(failures=2)
    with LogStream(taker) as stream:
        for number in range(5000):
            stream.line(number % 2, f"line {number}")
    assert taker.lines == {number + 1: f"line {number}" for number in range(5000)}


def test_a_batch_that_is_refused_does_not_hold_up_the_rest() -> None:
    taker = Taker(failures=1, error=Refused(422, "invalid", ""))
    with LogStream(taker) as stream:
        stream.say("one")
        stream.say("two")
    assert set(taker.lines.values()) == {"one", "two"}


def test_a_build_that_has_ended_does_not_wait_for_lines_to_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "_PAUSE_S", 60.0)
    taker, taken = Taker(), threading.Event()

    def take(first_seq: int, lines: list[list[Any]]) -> None:
        taker(first_seq, lines)
        taken.set()

    with LogStream(take, patience_s=1) as stream:
        stream.say("one")
        assert taken.wait(5)
        stream.say("two")
    assert set(taker.lines.values()) == {"one", "two"}
    assert not stream._thread.is_alive()


@pytest.mark.parametrize("error", [LeaseLost(409, "lease_lost", ""), Unreachable("nobody")])
def test_the_end_never_hangs(error: Exception) -> None:
    taker = Taker(failures=10**9, error=error)
    started = time.monotonic()
    with LogStream(taker, patience_s=0.3) as stream:
        stream.say("lost")
    assert time.monotonic() - started < 3


def test_a_build_that_prints_without_end_waits_for_its_readers() -> None:
    gate = threading.Event()
    seen: list[int] = []

    def take(_: int, lines: list[list[Any]]) -> None:
        gate.wait(10)
        seen.append(len(lines))

    with LogStream(take) as stream:

        def write() -> None:
            for _ in range(2000):
                stream.line(0, "x" * 16_000)

        writer = threading.Thread(target=write)
        writer.start()
        writer.join(0.5)
        assert writer.is_alive(), "32 MB do not fit"
        gate.set()
        writer.join(30)
    assert sum(seen) == 2000


@given(text=st.text())
def test_a_line_stays_one_line_of_bounded_size(text: str) -> None:
    cleaned = clean(text * 3)
    assert not any(char in cleaned for char in "\n\r\0\x7f")
    assert len(cleaned.encode()) <= 16 * 1024


def test_a_line_end_that_is_cut_in_two_is_one() -> None:
    lines = _Lines(0)
    assert lines.take(b"one\r") + lines.take(b"\ntwo\r\n") + lines.take(b"") == ["one", "two"]


@given(text=st.text(st.sampled_from("ab\r\nü"), max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: str, cuts: list[int]) -> None:
    data = text.replace("\r\n", "\n").encode()
    whole = _Lines(0)
    wanted = whole.take(data) + whole.take(b"")
    pieces = _Lines(0)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    got = [line for start, end in itertools.pairwise(edges) if data[start:end] for line in pieces.take(data[start:end])]
    assert got + pieces.take(b"") == wanted


# --- the messages, and trees that hostile code has made


@pytest.mark.parametrize(
    ("change", "field"),
    [({"token": ""}, "token"), ({"build_id": "5"}, "build_id"), ({"attempt": True}, "attempt"),
     ({"lease_s": 0}, "lease_s"),
     ({"artifact": None}, "artifact"), ({"limits": []}, "limits"), ({"limits": {"wall_s": -1}}, "wall_s")],
)  # fmt: skip
def test_a_claim_that_is_none_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        claim_from({**Plane(artifact=b"x").claim_for(1), **change})


def test_unknown_fields_are_ignored_and_the_token_is_not_shown() -> None:
    claim = claim_from({**Plane(artifact=b"x").claim_for(1), "new": 1, "limits": {"wall_s": 5, "new": 2}})
    assert (claim.limits.wall_s, claim.limits.memory_mb) == (5.0, 2048)
    assert claim.token not in repr(claim)
    assert renewed_from({"lease_s": 3, "cancel": "yes"}) == Renewed(3.0, False)


def test_an_outcome_says_only_what_applies() -> None:
    failed = Outcome("failed", "python", error=Failure("a", "b"), steps=(Step("fetch", "failed", "t"),)).to_json()
    assert failed["error"] == {"code": "a", "detail": "b"}
    assert "package" not in failed
    assert failed["steps"] == [{"name": "fetch", "status": "failed", "started_at": "t", "finished_at": None}]


def test_a_tree_too_deep_for_python_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(bytes(100_000))
    root = tmp_path / "tree"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "kept")
    (root / "data").write_bytes(b"1" * 50_000)
    assert 50_000 <= bytes_below(root, 10**9) < 100_000
    assert bytes_below(root, 10) >= 10
    here = root

    previous = Path.cwd()
    try:
        for _ in range(1500):
            os.chdir(here)
            Path("d").mkdir()
            here = Path("d")
    finally:
        os.chdir(previous)
    remove_tree(root)
    remove_tree(root)
    assert not root.exists()
    assert (tmp_path / "kept" / "file").stat().st_size == 100_000


def test_a_claim_keeps_its_key_from_member_to_member() -> None:
    keys: list[str] = []

    def member(sent: httpx.Request) -> httpx.Response:
        keys.append(sent.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("the answer was lost")
        return httpx.Response(409, json={"code": "not_claimable", "detail": "somebody has it"})

    client = ControlPlane(["http://a", "http://b"], "t", client=httpx.Client(transport=httpx.MockTransport(member)))
    for _ in range(2):
        with pytest.raises(NotClaimable):
            client.claim(5, "w", 5)
    assert keys[0] == keys[1] != keys[2]


# --- the process


def test_a_sweep_follows_no_link_and_waits_for_nothing(tmp_path: Path) -> None:
    rooms = tmp_path / "worker" / "builds"
    rooms.mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (rooms / "5-1").symlink_to(tmp_path / "precious")
    os.mkfifo(rooms / "6-1")
    worker_sweep.sweep(tmp_path / "worker")
    assert list(rooms.iterdir()) == []
    assert (tmp_path / "precious" / "file").exists()


def test_the_worker_imports_neither_django_nor_a_model() -> None:
    script = (
        "import sys, releases.tasks; from omni.celery import app; app.loader.import_default_modules();"
        "bad = [m for m in sys.modules if m.startswith(('django.db', 'django.apps', 'django.conf')) "
        "or m.endswith('.models')]; sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
