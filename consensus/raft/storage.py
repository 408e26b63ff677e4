"""A member's Raft files, opened so that they fit together.

Owns the decision whether they can be trusted. Files that cannot are set aside (`….damaged-<time>`) and the member
starts anew as a *fresh* one: it has forgotten its votes and entries that it had promised, so core lets it neither vote
nor campaign until it has caught up with a leader (or until a majority is as fresh as itself: a new cluster).
"""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from consensus.raft import snapshot as snapshots
from consensus.raft.journal import Damaged, Journal, Meta
from consensus.raft.snapshot import Snapshot
from omni.kernel import clock

_log = logging.getLogger("omni.raft")
NAMES = ("journal", "meta", "snapshot")


@dataclass(frozen=True, slots=True)
class Opened:
    journal: Journal
    snapshot: Snapshot | None
    snapshot_path: Path


def lock(folder: Path) -> int:
    """Two processes must never write these files. The descriptor keeps the lock. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"another Raft process of this member is running: {folder}") from error
    return fd


def open_files(folder: Path) -> Opened:
    """Raises DiskFailed."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for leftover in [*folder.glob("*.new"), *folder.glob("*.tmp")]:
        leftover.unlink()
    try:
        return _open(folder)
    except Damaged as damage:
        set_aside(folder, str(damage))
        return _open(folder)


def _open(folder: Path) -> Opened:
    path = folder / "snapshot"
    present = {name for name in NAMES if _holds_something(folder / name)}
    if present and not {"journal", "meta"} <= present:
        missing = sorted({"journal", "meta"} - present)
        raise Damaged(f"{folder}: {' and '.join(missing)} missing beside {', '.join(sorted(present))}")
    snapshot = snapshots.read(path) if "snapshot" in present else None
    meta = Meta(folder / "meta")
    try:
        journal = Journal(folder / "journal", meta)
    except Damaged:
        meta.close()
        raise
    if journal.cut:
        _log.warning("%s: %d bytes of a torn last write left out; nobody was told of them", folder, journal.cut)
    _fit(journal, snapshot, folder)
    return Opened(journal, snapshot, path)


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _fit(journal: Journal, snapshot: Snapshot | None, folder: Path) -> None:
    """The journal goes on where the snapshot ends.

    A crash between the two steps of a compaction leaves a new snapshot beside the whole journal: the old entries are
    dropped here, for PySyncObj would drop all of them, also those behind the snapshot.
    """
    if snapshot is None:
        if len(journal) and journal[0][1] != 1:
            raise Damaged(f"{folder}: the journal begins at entry {journal[0][1]} and there is no snapshot before it")
        return
    position = journal.position(snapshot.last[1])
    if position is not None and journal[position] == snapshot.last:
        before = journal.position(snapshot.previous[1])
        if before is None or journal[before] != snapshot.previous:
            raise Damaged(f"{folder}: the journal does not fit the snapshot")
        journal.deleteEntriesTo(before)
    elif len(journal) and journal[0][1] > snapshot.last[1]:
        raise Damaged(f"{folder}: the journal begins at entry {journal[0][1]}, the snapshot ends at {snapshot.last[1]}")
    else:
        # A snapshot that came from the leader takes the place of a log that had not got so far, or other entries.
        journal.clear()
        journal.add(*snapshot.previous)
        journal.add(*snapshot.last)
        journal.sync()
    journal.meta.commit_index = max(journal.meta.commit_index, snapshot.last[1])


def set_aside(folder: Path, reason: str) -> None:
    """Keep the files under other names and say why; the next start is a fresh one."""
    stamp = clock.now().strftime("%Y%m%dT%H%M%S")
    moved = []
    for name in NAMES:
        path = folder / name
        if path.exists():
            kept = folder / f"{name}.damaged-{stamp}"
            for number in range(1, 1000):
                if not kept.exists():
                    break
                kept = folder / f"{name}.damaged-{stamp}.{number}"
            path.rename(kept)
            moved.append(kept.name)
    _log.error(
        "%s. The files are kept as %s; this member joins again as a fresh one and neither votes nor leads before it "
        "has caught up with a leader.",
        reason,
        ", ".join(moved),
    )
