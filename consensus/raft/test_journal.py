"""The log, the term and the vote on disk: what was promised is there after every kind of end."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.raft import journal as journals
from consensus.raft.journal import Damaged, DiskFailed, Journal, Meta
from consensus.raft.snapshot import Snapshot
from consensus.raft.snapshot import write as write_snapshot
from consensus.raft.storage import lock, open_files


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_RESERVE", 4096)


def opened(folder: Path) -> Journal:
    return Journal(folder / "journal", Meta(folder / "meta"))


def killed(journal: Journal) -> None:
    """kill -9: descriptors close, nothing else happens."""
    os.close(journal._fd)
    journal.meta.close()


def filled(folder: Path, count: int = 5) -> Journal:
    journal = opened(folder)
    for index in range(1, count + 1):
        journal.add(b"\x00{%d}" % index, index, 1)
    return journal


OPERATIONS = st.lists(
    st.tuples(st.just("add"), st.binary(max_size=300))
    | st.tuples(st.sampled_from(["from", "to"]), st.integers(0, 12))
    | st.tuples(st.sampled_from(["clear", "sync", "kill"]), st.none()),
    max_size=30,
)


@pytest.mark.slow
@given(OPERATIONS)
def test_a_journal_is_what_was_written_whenever_its_process_is_killed(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal, model = opened(folder), []
    for operation, value in operations:
        if operation == "add":
            index = model[-1][1] + 1 if model else 1
            model.append((value, index, 3))
            journal.add(value, index, 3)
        elif operation == "from":
            del model[value:]
            journal.deleteEntriesFrom(value)
        elif operation == "to":
            del model[:value]
            journal.deleteEntriesTo(value)
        elif operation == "clear":
            model.clear()
            journal.clear()
        elif operation == "sync":
            journal.sync()
        else:
            killed(journal)
            journal = opened(folder)
        assert list(journal.entries) == model
    killed(journal)
    again = opened(folder)
    assert list(again.entries) == model
    killed(again)


def test_term_and_vote_survive(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    journal.setCurrentTerm(7, "b-1")
    killed(journal)
    again = opened(tmp_path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "b-1")


def test_a_torn_last_write_that_nobody_was_told_of_is_left_out(tmp_path: Path) -> None:
    journal = filled(tmp_path)
    journal.sync()
    end = journal._end
    journal.add(b"\x00" + b"x" * 100, 6, 1)
    killed(journal)
    with (tmp_path / "journal").open("r+b") as file:
        file.seek(end + 60)
        file.write(b"\xff" * 8)
    again = opened(tmp_path)
    assert [index for _, index, _ in again.entries] == [1, 2, 3, 4, 5]
    assert again.cut > 0
    again.add(b"new", 6, 2)
    killed(again)
    assert opened(tmp_path)[-1] == (b"new", 6, 2)


@pytest.mark.parametrize("damage", ["flip", "cut", "header", "empty header"])
def test_damage_to_what_was_promised_is_noticed(tmp_path: Path, damage: str) -> None:
    journal = filled(tmp_path)
    journal.sync()
    middle = journal._offsets[2]
    killed(journal)
    path = tmp_path / "journal"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[middle + 26] ^= 1
    elif damage == "cut":
        del content[middle:]
    elif damage == "header":
        content[0] ^= 1
    else:
        del content[10:]
    path.write_bytes(content)
    with pytest.raises(Damaged):
        opened(tmp_path)


def test_a_meta_copy_that_cannot_be_read_makes_a_member_fresh(tmp_path: Path) -> None:
    meta = Meta(tmp_path / "meta")
    for term in range(1, 4):
        meta.term, meta.vote, meta.fresh = term, "b-1", False
        meta.save()
    meta.close()
    path = tmp_path / "meta"
    content = bytearray(path.read_bytes())
    newest = max((0, 4096), key=lambda place: b'"term": 3' in content[place : place + 200])
    content[newest + 12] ^= 1
    path.write_bytes(content)
    again = Meta(path)
    assert (again.term, again.fresh) == (2, True)  # it may have voted in 3
    again.close()
    path.write_bytes(os.urandom(8192))
    with pytest.raises(Damaged):
        Meta(path)


def test_a_full_disk_is_an_error_and_the_reserve_lasts_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    sizes = {fd: os.fstat(fd).st_size for fd in (journal._fd, journal.meta._fd)}
    pwrite = os.pwrite

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def limited(fd: int, data: bytes, at: int) -> int:
        if at + len(data) > sizes[fd]:
            full()
        return pwrite(fd, data, at)

    monkeypatch.setattr(journals, "reserve", full)
    monkeypatch.setattr(os, "pwrite", limited)
    for index in range(1, 31):
        journal.add(b"\x00" * 100, index, 1)
    journal.sync()
    journal.setCurrentTerm(2, "b-1")
    with pytest.raises(DiskFailed, match="No space left"):
        journal.add(b"\x00" * 5000, 31, 1)
    with pytest.raises(DiskFailed, match="cannot be shortened"):
        journal.deleteEntriesTo(10)
    assert len(journal) == 30
    killed(journal)
    assert len(opened(tmp_path)) == 30


def snapshot_of(journal: Journal, position: int) -> Snapshot:
    state = {"cluster": {}, "members": {}, "leader": {}, "drains": {}, "services": {}}
    return Snapshot(state, journal[position], journal[position - 1])


def test_a_crash_between_snapshot_and_shortening_keeps_what_came_after(tmp_path: Path) -> None:
    files = open_files(tmp_path)
    for index in range(1, 9):
        files.journal.add(b"\x00{%d}" % index, index, 1)
    files.journal.sync()
    write_snapshot(tmp_path / "snapshot", snapshot_of(files.journal, 4))
    killed(files.journal)
    again = open_files(tmp_path)
    assert [index for _, index, _ in again.journal.entries] == [4, 5, 6, 7, 8]
    assert again.snapshot is not None
    assert again.journal.getRaftCommitIndex() == 5
    killed(again.journal)


@pytest.mark.parametrize("name", ["journal", "meta", "snapshot"])
def test_files_that_cannot_be_trusted_are_set_aside(tmp_path: Path, name: str, caplog: Any) -> None:
    files = open_files(tmp_path)
    for index in range(1, 9):
        files.journal.add(b"\x00{%d}" % index, index, 1)
    write_snapshot(tmp_path / "snapshot", snapshot_of(files.journal, 4))
    files.journal.meta.fresh = False
    files.journal.deleteEntriesTo(3)
    files.journal._destroy()
    (tmp_path / name).write_bytes(b"\x93" * 5000)
    again = open_files(tmp_path)
    assert len(again.journal) == 0
    assert again.snapshot is None
    assert again.journal.meta.fresh
    kept = sorted(path.name.split(".damaged-")[0] for path in tmp_path.glob("*.damaged-*"))
    assert kept == ["journal", "meta", "snapshot"]
    assert name in caplog.text
    assert "neither votes nor leads" in caplog.text
    again.journal._destroy()


@pytest.mark.parametrize("name", ["journal", "meta"])
def test_a_missing_file_is_damage_too(tmp_path: Path, name: str) -> None:
    files = open_files(tmp_path)
    files.journal.add(b"\x01", 1, 0)
    files.journal._destroy()
    (tmp_path / name).unlink()
    again = open_files(tmp_path)
    assert again.journal.meta.fresh
    assert list(tmp_path.glob("*.damaged-*"))
    again.journal._destroy()


def test_two_processes_never_share_the_files(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(OSError, match="another Raft process"):
        lock(tmp_path)
    os.close(held)
    os.close(lock(tmp_path))
