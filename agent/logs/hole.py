"""Giving disk space back at the front of a file while somebody appends at its end.

Owns one system call. Cutting a file short while another process writes to it loses what was written in between;
a hole does not: sizes and offsets stay, only the blocks go.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os

log = logging.getLogger(__name__)

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_BLOCK = 64 * 1024
_state = {"works": True}


def punch(fd: int, end: int, start: int = 0) -> int:
    """Free what lies in [start, end), as far as whole blocks go; answers up to where it did (`start` if nowhere)."""
    end -= end % _BLOCK
    if end <= start or not _state["works"]:
        return start
    try:
        _fallocate(fd, start, end - start)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        _state["works"] = False
        log.warning("this file system has no holes: a log's space comes back only when its instance restarts")
        return start
    return end


def _fallocate(fd: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
