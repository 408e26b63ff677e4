"""Every source of leadership keeps the same contract; the page in particular."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus.elected import ElectedLease, MemberLease
from consensus.fake import FakeLease
from consensus.lease import ConsensusUnavailable, Held, NoLease, NotHeld
from consensus.page import SIZE, PageLease, PageWriter
from consensus.raft.page import RaftPage, RaftPageWriter, RaftView
from consensus.static import StaticLease
from omni.kernel import clock


class LeaseContract:
    """What `current` promises, whoever implements it."""

    def make(self, tmp_path: Path) -> object:
        raise NotImplementedError

    def hold(self, lease: object, epoch: int) -> None:
        raise NotImplementedError

    def lose(self, lease: object) -> None:
        raise NotImplementedError

    def test_held_names_the_epoch_and_ends_in_the_future(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.hold(lease, 7)
        answer = lease.current()  # type: ignore[attr-defined]
        assert isinstance(answer, Held)
        assert answer.epoch == 7
        assert answer.valid_until > clock.monotonic()

    def test_lost_is_not_held(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.hold(lease, 7)
        self.lose(lease)
        assert isinstance(lease.current(), NotHeld)  # type: ignore[attr-defined]


class TestFakeLease(LeaseContract):
    def make(self, tmp_path: Path) -> FakeLease:
        return FakeLease()

    def hold(self, lease: FakeLease, epoch: int) -> None:  # type: ignore[override]
        lease.hold(epoch)

    def lose(self, lease: FakeLease) -> None:  # type: ignore[override]
        lease.lose(None)


class TestStaticLease(LeaseContract):
    def make(self, tmp_path: Path) -> StaticLease:
        return StaticLease("a:1")

    def hold(self, lease: StaticLease, epoch: int) -> None:  # type: ignore[override]
        term = lease.term()
        assert term is not None
        lease.grant(term, epoch, "claim")

    def lose(self, lease: StaticLease) -> None:  # type: ignore[override]
        lease.revoke()

    def test_it_leads_only_after_the_claim(self) -> None:
        assert StaticLease("a:1").current() == NotHeld(None)


def raft_view(
    role: str, term: int = 4, *, established: bool = True, leader: str | None = "a:1", for_s: float = 5.0
) -> RaftView:
    return RaftView(role, term, leader, established, clock.monotonic() + for_s, 10, os.getpid())  # type: ignore[arg-type]


class _Elected(ElectedLease):
    """An elected lease beside the page that its Raft process would write."""

    def __init__(self, path: Path) -> None:
        self.raft = RaftPageWriter(path)
        super().__init__("a:1", RaftPage(path))


class TestElectedLease(LeaseContract):
    def make(self, tmp_path: Path) -> _Elected:
        return _Elected(tmp_path / "raft.page")

    def hold(self, lease: _Elected, epoch: int) -> None:  # type: ignore[override]
        lease.raft.write(raft_view("leader"))
        term = lease.term()
        assert term == 4
        lease.grant(term, epoch, "claim")

    def lose(self, lease: _Elected) -> None:  # type: ignore[override]
        lease.raft.write(raft_view("follower", 5, established=False, leader="b:2"))

    def test_it_ends_with_the_page_and_never_reaches_beyond_it(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.hold(lease, 7)
        view = raft_view("leader", for_s=0.05)
        lease.raft.write(view)
        answer = lease.current()
        assert isinstance(answer, Held)
        assert answer.valid_until == view.valid_until
        lease.raft.write(raft_view("leader", for_s=-0.001))
        assert lease.term() is None
        with pytest.raises(ConsensusUnavailable):
            lease.current()

    def test_a_claim_for_an_earlier_term_is_worth_nothing(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.hold(lease, 7)
        lease.raft.write(raft_view("leader", 6))
        assert lease.term() == 6
        assert lease.current() == NotHeld(None), "elected again, but the fence is not claimed for this term"

    def test_a_leader_that_has_not_seen_its_own_term_applied_is_none_yet(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        lease.raft.write(raft_view("leader", established=False))
        assert lease.term() is None
        assert lease.current() == NotHeld(None)

    def test_a_follower_names_the_leader(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.lose(lease)
        assert lease.current() == NotHeld("b:2")


class _Member:
    """A web worker's lease beside the two processes that it reads from."""

    def __init__(self, folder: Path) -> None:
        self.daemon, self.raft = PageWriter(folder / "lease"), RaftPageWriter(folder / "raft.page")
        self.current = MemberLease("a:1", PageLease(folder / "lease"), RaftPage(folder / "raft.page")).current


class TestMemberLease(LeaseContract):
    def make(self, tmp_path: Path) -> _Member:
        return _Member(tmp_path)

    def hold(self, lease: _Member, epoch: int) -> None:  # type: ignore[override]
        lease.daemon.held(Held(epoch, clock.monotonic() + 5, "claim"), "a:1")

    def lose(self, lease: _Member) -> None:  # type: ignore[override]
        lease.daemon.not_held("b:2", clock.monotonic() + 5)

    def test_while_the_daemon_is_silent_writes_are_passed_on_to_whom_raft_names(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        self.hold(lease, 7)
        lease.daemon.unknown()
        lease.raft.write(raft_view("follower", established=False, leader="b:2"))
        assert lease.current() == NotHeld("b:2")

    def test_without_the_daemon_nothing_is_held(self, tmp_path: Path) -> None:
        lease = self.make(tmp_path)
        lease.raft.write(raft_view("leader"))
        with pytest.raises(ConsensusUnavailable):
            lease.current()


def test_a_management_command_holds_no_lease() -> None:
    with pytest.raises(ConsensusUnavailable, match="HTTP"):
        NoLease().current()


class _Page:
    def __init__(self, path: Path) -> None:
        self.writer = PageWriter(path)
        self.current = PageLease(path).current


class TestPageLease(LeaseContract):
    def make(self, tmp_path: Path) -> _Page:
        return _Page(tmp_path / "lease")

    def hold(self, lease: _Page, epoch: int) -> None:  # type: ignore[override]
        lease.writer.held(Held(epoch, clock.monotonic() + 5, "claim"), "a:1")

    def lose(self, lease: _Page) -> None:  # type: ignore[override]
        lease.writer.not_held("b:2", clock.monotonic() + 5)

    def test_it_names_the_leader(self, tmp_path: Path) -> None:
        page = self.make(tmp_path)
        self.lose(page)
        assert page.current() == NotHeld("b:2")

    def test_a_page_that_nobody_renews_expires(self, tmp_path: Path) -> None:
        page = self.make(tmp_path)
        page.writer.held(Held(3, clock.monotonic() - 0.001, ""), "a:1")
        with pytest.raises(ConsensusUnavailable):
            page.current()

    def test_a_missing_a_short_and_a_damaged_page_are_no_leadership(self, tmp_path: Path) -> None:
        path = tmp_path / "lease"
        with pytest.raises(ConsensusUnavailable):
            PageLease(path).current()
        path.write_bytes(b"")
        with pytest.raises(ConsensusUnavailable):
            PageLease(path).current()
        path.write_bytes(os.urandom(SIZE))
        with pytest.raises(ConsensusUnavailable):
            PageLease(path).current()

    def test_a_closed_page_is_no_leadership(self, tmp_path: Path) -> None:
        page = self.make(tmp_path)
        self.hold(page, 1)
        page.writer.close()
        with pytest.raises(ConsensusUnavailable):
            page.current()

    def test_the_last_words_of_a_page_may_name_who_leads_now(self, tmp_path: Path) -> None:
        page = self.make(tmp_path)
        self.hold(page, 1)
        page.writer.close("b:2", for_s=5.0)
        assert page.current() == NotHeld("b:2")

    def test_a_page_from_before_a_reboot_has_expired(self, tmp_path: Path) -> None:
        page = self.make(tmp_path)
        page.writer.held(Held(3, clock.monotonic() + 864_000, ""), "a:1")
        with pytest.raises(ConsensusUnavailable):
            page.current()
