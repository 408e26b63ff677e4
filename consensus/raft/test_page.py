"""The Raft page: what a reader may believe, and how cheap it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from consensus.lease import ConsensusUnavailable
from consensus.raft.page import SIZE, RaftPage, RaftPageWriter, RaftView
from omni.kernel import clock


def view(seconds: float = 5.0, leader: str | None = "10.0.0.1:8000") -> RaftView:
    return RaftView("leader", 7, leader, True, clock.monotonic() + seconds, 12, os.getpid(), 11)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer, page = RaftPageWriter(tmp_path / "page"), RaftPage(tmp_path / "page")
    for leader in ("10.0.0.1:8000", None, "[fd00::1]:8000", "x" * 253 + ":65535"):
        said = view(leader=leader)
        writer.write(said)
        assert page.view() == said
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o600


def test_a_page_that_nobody_renews_is_worth_nothing(tmp_path: Path) -> None:
    writer, page = RaftPageWriter(tmp_path / "page"), RaftPage(tmp_path / "page")
    writer.write(view(-0.001))
    with pytest.raises(ConsensusUnavailable, match="not renewed"):
        page.view()
    writer.write(view())
    page.view()
    writer.close()
    with pytest.raises(ConsensusUnavailable):
        page.view()


def test_a_missing_a_short_and_a_damaged_page_are_no_leadership(tmp_path: Path) -> None:
    path = tmp_path / "page"
    for content in (None, b"", b"\0" * SIZE, os.urandom(SIZE)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConsensusUnavailable):
            RaftPage(path).view()


def test_a_writer_that_starts_again_keeps_its_readers(tmp_path: Path) -> None:
    writer, page = RaftPageWriter(tmp_path / "page"), RaftPage(tmp_path / "page")
    writer.write(view())
    page.view()
    again = RaftPageWriter(tmp_path / "page")
    with pytest.raises(ConsensusUnavailable):
        page.view()
    again.write(view())
    assert page.view().established


def test_a_look_costs_less_than_fifty_microseconds(tmp_path: Path) -> None:
    writer, page = RaftPageWriter(tmp_path / "page"), RaftPage(tmp_path / "page")
    writer.write(view(60.0))
    page.view()
    best = min(_timed(page) for _ in range(20))
    assert best < 50e-6


def _timed(page: RaftPage) -> float:
    begun = time.perf_counter()
    for _ in range(100):
        page.view()
    return (time.perf_counter() - begun) / 100
