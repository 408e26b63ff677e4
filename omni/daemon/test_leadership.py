"""What a daemon does about leading: the order of page and work, on a Raft page that a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from consensus import fence, gate
from consensus.elected import ElectedLease
from consensus.lease import ConsensusUnavailable, Held, NotHeld
from consensus.models import Fence
from consensus.page import PageLease, PageWriter
from consensus.raft.page import RaftPage, RaftPageWriter, RaftView
from consensus.static import StaticLease
from omni.daemon.claims import ABLE_LEADER_S, ABLE_S, FenceClaims
from omni.daemon.leadership import Leadership
from omni.kernel import clock
from omni.kernel.errors import NotLeader
from omni.testing.factories import make_fence

# Not inside a transaction of the test: a claimer closes its connection when it is old or the database fails.
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "telemetry"])


class Member:
    """One daemon without threads: `step` is what its two threads do, one after the other."""

    def __init__(self, folder: Path, netloc: str = "a:1", *, elected: bool = True) -> None:
        self.did: list[str] = []
        self.fails: BaseException | None = None
        self.raft = RaftPageWriter(folder / f"{netloc}.raft")
        self.lease: Any = ElectedLease(netloc, RaftPage(folder / f"{netloc}.raft")) if elected else StaticLease(netloc)
        self.page = PageLease(folder / f"{netloc}.lease")
        self.claims = FenceClaims(self.lease, "test", netloc, self._prepare)
        self.leadership = Leadership(self.lease, PageWriter(folder / f"{netloc}.lease"), self.claims, self)

    def _prepare(self) -> None:
        self.did.append(f"prepare, page {self.says()}")
        if self.fails is not None:
            raise self.fails

    def start(self, epoch: int) -> None:
        self.did.append(f"start {epoch}, page {self.says()}")

    def stop(self) -> None:
        self.did.append(f"stop, page {self.says()}")

    def says(self) -> str:
        try:
            answer = self.page.current()
        except ConsensusUnavailable:
            return "unknown"
        return f"held {answer.epoch}" if isinstance(answer, Held) else f"led by {answer.leader}"

    def view(self, role: str, term: int, leader: str | None, *, established: bool = True, for_s: float = 5.0) -> None:
        until = clock.monotonic() + for_s
        self.raft.write(RaftView(role, term, leader, established, until, 1, 1))  # type: ignore[arg-type]

    def tick(self) -> str:
        self.leadership.tick()
        return self.says()

    def step(self) -> str:
        self.tick()
        self.claims.step()
        return self.tick()


@pytest.fixture
def written() -> None:
    """A platform that exists: writes need not wait for the bootstrap."""
    make_fence()
    Fence.objects.update(write_index=7)


@pytest.fixture
def member(tmp_path: Path) -> Member:
    return Member(tmp_path)


def test_one_member_leads_by_claiming_alone(tmp_path: Path, written: None) -> None:
    alone = Member(tmp_path, elected=False)
    assert alone.tick() == "led by None"
    assert alone.step() == "held 2"
    assert alone.did[-1] == "start 2, page held 2"


def test_a_follower_names_the_leader_and_claims_nothing(member: Member, written: None) -> None:
    member.view("follower", 3, "b:2", established=False)
    assert member.step() == "led by b:2"
    assert fence.read()[0] == 1
    assert member.did == []


def test_elected_claim_page_work_in_this_order(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1", established=False)
    assert member.step() == "led by None", "its own term is not applied yet: it may not have seen the last commit"
    member.view("leader", 3, "a:1")
    assert member.step() == "held 2"
    assert member.did == ["prepare, page led by None", "start 2, page held 2"]


def test_on_an_empty_database_the_bootstrap_comes_before_the_first_write(member: Member) -> None:
    member.view("leader", 3, "a:1")
    member.fails = OperationalError("gone")
    assert member.step() == "led by None"
    member.fails = None
    assert member.step() == "held 1"


def test_a_bootstrap_that_fails_holds_up_nobody_who_wants_to_write(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1")
    member.fails = OperationalError("gone")
    assert member.step() == "held 2"
    member.fails = None
    before = len(member.did)
    member.step()
    assert "prepare, page held 2" in member.did[before:], "repeated until it worked"


@pytest.mark.parametrize("error", [OperationalError("no such column"), TypeError("a defect")])
def test_a_leader_whose_start_up_fails_again_and_again_makes_room(
    member: Member, written: None, error: Exception
) -> None:
    member.view("leader", 3, "a:1")
    member.fails = error
    member.step()
    assert member.claims.able, "once may be chance"
    for _ in range(4):
        member.step()
    assert not member.claims.able
    assert member.says() != "held 2"


def test_deposed_the_page_says_so_before_the_work_is_stopped(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1")
    member.step()
    member.view("follower", 4, "b:2", established=False)
    assert member.tick() == "led by b:2"
    assert member.did[-1] == "stop, page led by b:2"


def test_a_raft_page_that_expires_ends_the_lease_and_the_work(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1")
    member.step()
    member.view("leader", 3, "a:1", for_s=-0.001)
    assert member.tick() == "unknown"
    assert member.did[-1] == "stop, page unknown"
    member.view("leader", 3, "a:1")
    assert member.tick() == "held 2", "the same term goes on: nobody can have led in between, and the claim still holds"
    assert member.did[-1] == "start 2, page held 2"


def test_the_page_never_outlives_rafts(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1", for_s=0.2)
    member.step()
    answer = member.page.current()
    assert isinstance(answer, Held)
    assert answer.valid_until == member.lease.page.view().valid_until


def test_elected_again_under_a_new_term_it_claims_again(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1")
    member.step()
    member.view("leader", 5, "a:1")
    assert member.tick() == "led by None"
    assert member.step() == "held 3"
    assert [what for what in member.did if not what.startswith("prepare")] == [
        "start 2, page held 2", "stop, page led by None", "start 3, page held 3",
    ]  # fmt: skip


def test_the_leader_finds_out_that_somebody_claimed_after_it(
    member: Member, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    member.view("leader", 3, "a:1")
    member.step()
    fence.claim("test", "z")
    member.claims.step()
    assert member.tick() == "led by None"
    assert member.did[-1] == "stop, page led by None"
    assert member.step() == "held 4", "Raft still says that it leads"


def test_of_two_members_the_later_claim_writes(tmp_path: Path, written: None) -> None:
    old, new = Member(tmp_path, "a:1"), Member(tmp_path, "b:2")
    old.view("leader", 3, "a:1")
    new.view("leader", 4, "b:2")
    old.step()
    new.step()
    gate.configure(old.lease, "a-1")
    with pytest.raises(NotLeader):
        gate.run(lambda tx: tx.record("test.late", "test", 0), actor=_ME, cause="test")
    gate.configure(new.lease, "b-2")
    gate.run(lambda tx: tx.record("test.new", "test", 0), actor=_ME, cause="test")


def test_another_clusters_database_is_refused_with_both_names_and_the_way_out(
    tmp_path: Path, written: None, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Member(tmp_path)
    stranger.claims._cluster_id = "ours"
    stranger.view("leader", 3, "a:1")
    assert stranger.step() == "led by None"
    assert not stranger.claims.able
    said = caplog.text
    assert "cluster test" in said
    assert "cluster ours" in said
    assert "manage.py cluster_adopt --from test" in said
    assert fence.read() == (1, 7, "test", fence.read()[3])


def test_a_database_that_does_not_answer_makes_the_member_unable(
    member: Member, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    member.view("follower", 3, "b:2", established=False)
    member.step()
    assert member.claims.able
    with monkeypatch.context() as broken:
        broken.setattr(fence, "read", _fail)
        member.claims.step()
        assert not member.claims.able
        member.view("leader", 4, "a:1")
        assert member.step() == "led by None"
    member.claims.step()
    assert member.claims.able
    assert member.tick() == "held 2"


def test_a_leader_says_later_than_the_others_that_the_database_is_silent(
    member: Member, written: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent for all: the others have said so before it does, so it is told to hand over to nobody."""
    member.view("leader", 3, "a:1")
    member.step()
    monkeypatch.setattr(fence, "read", _fail)
    member.claims.step()
    assert member.claims.able
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + ABLE_S + 0.1)
    member.view("leader", 3, "a:1")
    assert member.claims.able
    member.view("follower", 4, "b:2", established=False)
    assert not member.claims.able
    monkeypatch.setattr(clock, "monotonic", lambda: now + ABLE_LEADER_S + 0.1)
    member.view("leader", 5, "a:1")
    assert not member.claims.able


def test_after_a_graceful_end_the_page_names_the_successor(member: Member, written: None) -> None:
    member.view("leader", 3, "a:1")
    member.step()
    member.leadership.stop("b:2", 5.0)
    assert member.page.current() == NotHeld("b:2")
    assert member.did[-1] == "stop, page led by b:2"


def _fail(*_args: object, **_options: object) -> Any:
    raise OperationalError("the server has gone away")


_ME = gate.Actor("system", name="test")
