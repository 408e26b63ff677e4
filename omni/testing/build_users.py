"""Users for the builds of tests, of each test process its own.

A packet filter knows builds by their users: where two test processes shared them, the filter that a test of one had put
up held up the builds of the other.
"""

from __future__ import annotations

import os

_FIRST = 1_000_000  # beyond those of any platform on this machine
_EACH = 30_000


def uid_base() -> int:
    """For `agent.uid_base`; the same for all tests of one process of pytest-xdist."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return _FIRST + _EACH * int(worker.removeprefix("gw"))
