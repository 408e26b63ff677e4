"""`python -m consensus.raft.process FD`: the Raft process proper, with its settings read from an inherited descriptor.

Owns the end of the process: each way it can end has its message and exit code, and its supervisor starts it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

if __name__ == "__main__":
    # PySyncObj imports it for passwords, which we have no use for: 7 MiB for the life of the process.
    sys.modules["cryptography"] = None  # type: ignore[assignment]

from consensus.raft.journal import DiskFailed
from consensus.raft.member import RaftMember
from consensus.raft.replication import Diverged
from consensus.raft.settings import Settings
from consensus.raft.storage import set_aside
from observing import journal

_log = logging.getLogger("omni.raft")
EXIT_PORT, EXIT_DISK, EXIT_DIVERGED = 1, 74, 75


def main(arguments: list[str]) -> int:
    with os.fdopen(int(arguments[0]), "rb") as file:
        file.seek(0)
        settings = Settings.from_json(file.read().decode())
    journal.configure("", settings.log_level, settings.log_format)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(-5)  # as root: a busy machine must not make the leader late
    try:
        return run(settings)
    except DiskFailed as failure:
        _log.critical("Raft stops, for it can no longer keep what it promises: %s", failure)
        return EXIT_DISK
    except OSError as error:
        _log.critical("Raft cannot start at %s:%d: %s", *settings.listen, error.strerror or error)
        return EXIT_PORT


def run(settings: Settings) -> int:
    member = RaftMember(settings)
    _log.info("Raft of %s listens at %s:%d", settings.me, *settings.listen)
    try:
        member.run()
    except Diverged as diverged:
        member.page.close()
        set_aside(member.folder, str(diverged))
        return EXIT_DIVERGED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
