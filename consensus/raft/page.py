"""The Raft page: one small mapped file through which the Raft process tells its member who leads.

Owns the page's layout. One writer (the Raft process), many readers; a reader costs about a microsecond and no system
call. The page expires by itself, so a process that froze or died is nobody's leader after `valid_until`. Both sides
read CLOCK_MONOTONIC, which all processes of one host share. An opinion that saves work: the fence decides.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from consensus.lease import ConsensusUnavailable
from omni.kernel import clock

Role = Literal["leader", "follower", "candidate"]
_ROLES: tuple[Role, ...] = ("follower", "candidate", "leader")

# role, established, term, commit index, applied index, valid_until (monotonic seconds), writer's pid, leader
_BODY = struct.Struct("<BBxxxxxxQQQdQ264s")
_CRC = struct.Struct("<I")
SIZE = _BODY.size + _CRC.size
_TORN_READS = 50
_LEADER_BYTES = 264  # an address of 253 characters, a colon, a port


@dataclass(frozen=True, slots=True)
class RaftView:
    """What Raft says on this member right now. `leader` is `"<host>:<HTTP port>"`, None when unknown.

    `established`: this member leads and an entry of its own term is applied, so it has seen every earlier commit.
    `valid_until`: on an established leader the end of its lease: before that moment no other member was elected,
    however the network behaves (a transfer ends the lease before it begins).
    """

    role: Role
    term: int
    leader: str | None
    established: bool
    valid_until: float
    commit_index: int
    pid: int
    applied_index: int = 0


class RaftPageWriter:
    """The Raft process's side. Creates the page, rewrites it in place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A file with a hole would end the process by SIGBUS at the first write on a full disk.
            os.pwrite(fd, b"\0" * SIZE, 0)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def write(self, view: RaftView) -> None:
        leader = (view.leader or "").encode()[:_LEADER_BYTES]
        body = _BODY.pack(
            _ROLES.index(view.role),
            view.established,
            view.term,
            view.commit_index,
            view.applied_index,
            view.valid_until,
            view.pid,
            leader,
        )
        self._map[:SIZE] = body + _CRC.pack(zlib.crc32(body))

    def close(self) -> None:
        """Nobody leads here any more, at once."""
        self.write(RaftView("follower", 0, None, False, 0.0, 0, os.getpid()))
        self._map.close()


class RaftPage:
    """A reader's side. Keeps the page mapped; the writer never replaces the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def view(self) -> RaftView:
        """Raises ConsensusUnavailable when there is no page yet, or when nobody has renewed it."""
        page = self._map or self._open()
        for _ in range(_TORN_READS):
            raw = page[:SIZE]
            body = raw[: _BODY.size]
            if _CRC.unpack_from(raw, _BODY.size)[0] == zlib.crc32(body):
                return self._answer(body)
        raise ConsensusUnavailable("the Raft page is damaged")

    def _answer(self, body: bytes) -> RaftView:
        role, established, term, commit, applied, valid_until, pid, leader = _BODY.unpack(body)
        if valid_until <= clock.monotonic():
            raise ConsensusUnavailable("the member's Raft process has not renewed its page")
        name = leader.rstrip(b"\0").decode(errors="replace") or None
        return RaftView(_ROLES[role], term, name, bool(established), valid_until, commit, pid, applied)

    def _open(self) -> mmap.mmap:
        with contextlib.suppress(FileNotFoundError, ValueError):
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
            return self._map
        raise ConsensusUnavailable("the member's Raft process has not written its page yet")
