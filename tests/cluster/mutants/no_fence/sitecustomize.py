"""The fence lets everybody through: a deposed leader commits."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

sys.path.append(os.environ["OMNI_TEST_MUTANTS"])

from after_import import patch


def _change(fence: Any) -> None:
    right = fence.advancing

    def advancing(connection: Any, epoch: int, check: Any, **options: Any) -> Any:
        statement = right(connection, epoch, check, **options)
        condition = " AND epoch = %s"
        assert condition in statement.sql, "the fence has changed: so must this"
        assert statement.params[0] == epoch
        return dataclasses.replace(statement, sql=statement.sql.replace(condition, ""), params=statement.params[1:])

    fence.advancing = advancing


patch("consensus.fence", _change)
