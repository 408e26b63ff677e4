"""`python -m consensus.raft.process FD`: the Raft process proper, with its settings read from an inherited descriptor.

Owns the end of the process: each way it can end has its message and exit code, and its supervisor starts it again.
"""

from __future__ import annotations

import contextlib
import json
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
from omni.kernel import clock

_log = logging.getLogger("omni.raft")
EXIT_PORT, EXIT_DISK, EXIT_DIVERGED = 1, 74, 75


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": clock.rfc3339(clock.now()), "level": record.levelname, "logger": record.name}
        line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def main(arguments: list[str]) -> int:
    with os.fdopen(int(arguments[0]), "rb") as file:
        file.seek(0)
        settings = Settings.from_json(file.read().decode())
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level, handlers=[handler])
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
