"""`python -m consensus.raft`: reads the configuration, makes this member's certificate, and becomes the Raft process.

The process proper replaces this one (same pid), so that the libraries needed here do not stay in its memory.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import IO

from consensus import identity
from consensus.raft import settings as raft_settings
from omni.kernel import config as configuration
from omni.kernel import keys, secret_files


def main() -> int:
    config = configuration.load_or_exit()
    try:
        mine = identity.of(config)
        cluster_id = keys.cluster_id(config)
    except (identity.NoClusterSecret, secret_files.UnsafeSecretFile) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    faults = os.environ.get("OMNI_TEST_RAFT_FAULTS", "") not in ("", "0")
    settings = raft_settings.of(config, mine, cluster_id, faults=faults)
    become(settings.to_json().encode())
    return 0


def become(content: bytes) -> None:
    """The Raft process takes this one's place and reads `content` from a file without a name."""
    environment = {name: value for name, value in os.environ.items() if name != "OMNI_CLUSTER_SECRET"}
    with _nameless() as file:
        file.write(content)
        file.flush()
        os.set_inheritable(file.fileno(), True)
        arguments = [sys.executable, "-m", "consensus.raft.process", str(file.fileno())]
        os.execve(sys.executable, arguments, environment)  # noqa: S606


def _nameless() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("omni-raft"), "w+b")
    return tempfile.TemporaryFile()


if __name__ == "__main__":
    sys.exit(main())
