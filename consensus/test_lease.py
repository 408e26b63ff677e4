"""Every source of leadership keeps the same contract; the page in particular."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus.fake import FakeLease
from consensus.lease import ConsensusUnavailable, Held, NotHeld
from consensus.page import SIZE, PageLease, PageWriter
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
        return StaticLease("a:1", "a:1")

    def hold(self, lease: StaticLease, epoch: int) -> None:  # type: ignore[override]
        lease.grant(epoch, "claim")

    def lose(self, lease: StaticLease) -> None:  # type: ignore[override]
        lease.revoke()

    def test_only_the_first_entry_is_a_candidate(self) -> None:
        assert StaticLease("a:1", "a:1").is_candidate
        follower = StaticLease("a:2", "a:1")
        assert not follower.is_candidate
        assert follower.current() == NotHeld("a:1")


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
