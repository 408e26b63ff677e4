"""The lease page: one small mapped file through which a member's daemon tells its web workers who leads.

Owns the page's layout. One writer (the daemon), many readers in other processes; a reader costs about a microsecond
and no system call. The page expires by itself: a daemon that froze or died is nobody's leader after `valid_until`.
Both sides read CLOCK_MONOTONIC, which all processes of one host share.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from pathlib import Path

from consensus.lease import ConsensusUnavailable, Held, NotHeld
from omni.kernel import clock

# held flag, epoch, valid_until (monotonic seconds), writer's pid, claim id, leader "<host>:<port>"
_BODY = struct.Struct("<BxxxxxxxqdQ32s80s")
_CRC = struct.Struct("<I")
SIZE = _BODY.size + _CRC.size
_TORN_READS = 50
_LONGEST_S = 60.0  # no page is valid for longer; one that says so was written before a reboot set the clock back


class PageWriter:
    """The daemon's side. Creates the page, rewrites it in place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):  # a hole would end the process by SIGBUS on a full disk
                os.posix_fallocate(fd, 0, SIZE)
            os.ftruncate(fd, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)

    def held(self, lease: Held, leader: str) -> None:
        self._write(1, lease.epoch, lease.valid_until, lease.claim_id, leader)

    def not_held(self, leader: str | None, valid_until: float) -> None:
        self._write(0, 0, valid_until, "", leader or "")

    def unknown(self) -> None:
        """Nobody can say who leads: a page that has expired already."""
        self._write(0, 0, 0.0, "", "")

    def close(self, leader: str | None = None, for_s: float = 0.0) -> None:
        """The last words: nobody is known to lead, or `leader` does, to be believed for `for_s`."""
        if leader is not None:
            self.not_held(leader, clock.monotonic() + for_s)
        else:
            self.unknown()
        self._map.close()

    def _write(self, held: int, epoch: int, valid_until: float, claim: str, leader: str) -> None:
        body = _BODY.pack(held, epoch, valid_until, os.getpid(), claim.encode()[:32], leader.encode()[:80])
        self._map[:SIZE] = body + _CRC.pack(zlib.crc32(body))


class PageLease:
    """A web worker's side: `Lease` read from the page."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def current(self) -> Held | NotHeld:
        page = self._map or self._open()
        for _ in range(_TORN_READS):
            raw = page[:SIZE]
            body = raw[: _BODY.size]
            if _CRC.unpack(raw[_BODY.size :])[0] == zlib.crc32(body):
                return self._answer(body)
        raise ConsensusUnavailable("the lease page is damaged")

    def _answer(self, body: bytes) -> Held | NotHeld:
        held, epoch, valid_until, _pid, claim, leader = _BODY.unpack(body)
        if not 0 < valid_until - clock.monotonic() < _LONGEST_S:
            raise ConsensusUnavailable("the member's daemon has not renewed the lease page")
        if held:
            return Held(epoch, valid_until, claim.rstrip(b"\0").decode())
        return NotHeld(leader.rstrip(b"\0").decode() or None)

    def _open(self) -> mmap.mmap:
        with contextlib.suppress(FileNotFoundError, ValueError):
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
            return self._map
        raise ConsensusUnavailable("the member's daemon has not written its lease page yet")
