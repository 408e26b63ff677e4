"""The fence lets everybody through: a deposed leader commits."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.append(os.environ["OMNI_TEST_MUTANTS"])

from after_import import patch


def _change(fence: Any) -> None:
    right = fence.advance

    def advance(connection: Any, epoch: int) -> int | None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT epoch FROM consensus_fence WHERE id = 1 FOR UPDATE")
            current = int(cursor.fetchone()[0])
        found: int | None = right(connection, current)
        return found

    fence.advance = advance


patch("consensus.fence", _change)
