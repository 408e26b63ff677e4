"""The events of a gate transaction as rows: the statements behind the fence that write them.

Owns how a draft becomes a row. The row's key is made of the number that the fence gives in the same packet, so nothing
is computed between the fence and COMMIT. Must not decide anything.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from django.db.backends.base.base import BaseDatabaseWrapper

from consensus import fence
from omni.kernel import clock
from omni.kernel.events import EventDraft
from omni.kernel.models import ORDINALS, Event
from omni.kernel.pipeline import Statement

_COLUMNS = ("at", "epoch", "claim", "member", "actor", "cause", "request_id", "kind", "object_type", "object_id",
            "org_id", "app_id", "change")  # fmt: skip
_AT_ONCE = 500  # rows of one statement: SQLite takes 32,766 values


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all events of one transaction share."""

    at: dt.datetime
    epoch: int
    claim: str
    member: str
    actor: str
    cause: str
    request_id: str


def statements(connection: BaseDatabaseWrapper, drafts: Sequence[EventDraft], stamp: Stamp) -> list[Statement]:
    """To be run behind the fence, in the same transaction."""
    quote = connection.ops.quote_name
    names = ", ".join(quote(name) for name in ("key", *_COLUMNS))
    head = f"INSERT INTO {quote(Event._meta.db_table)} ({names}) VALUES "  # noqa: S608 - names of our own
    one = f"({fence.index_sql(connection)} * {ORDINALS} + %s{', %s' * len(_COLUMNS)})"
    shared = (clock.sql(stamp.at), stamp.epoch, stamp.claim, stamp.member, stamp.actor)
    found = []
    for start in range(0, len(drafts), _AT_ONCE):
        part = drafts[start : start + _AT_ONCE]
        params: list[Any] = []
        for ordinal, draft in enumerate(part, start):
            params += (ordinal, *shared, draft.cause or stamp.cause, stamp.request_id, draft.kind, draft.object_type,
                       draft.object_id, draft.org_id, draft.app_id, _json(draft.change))  # fmt: skip
        found.append(Statement(head + ", ".join([one] * len(part)), params))
    return found


def _json(change: dict[str, Any]) -> str:
    return orjson.dumps(change, option=orjson.OPT_NON_STR_KEYS).decode()
