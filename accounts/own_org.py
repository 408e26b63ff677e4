"""The org and the rights of a token on the busiest write path: decided on a copy, proven by the fence.

Owns a copy of each token's org in this process. A verb decides on it without asking; every transaction that changes who
may do what moves the fence's `rights_index`, and a write that decided on a copy commits only if that has not moved
since the copy was made. If it has, the gate undoes everything and runs the verb again on what is so now. The copies are
for reading; nobody may change one.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass

import orjson
from django.db import DEFAULT_DB_ALIAS, connections

from accounts import access, roles
from accounts.models import Org
from consensus import fence
from consensus.gate import Transaction
from omni.kernel import clock
from omni.kernel.errors import Forbidden

_KEPT = 5_000
_ORG = ("id", "name", "max_apps", "max_instances", "max_memory_mb", "max_builds_at_once", "revision")
_READ = (
    f"SELECT t.role, t.scopes, t.platform, t.expires_at, {', '.join(f'o.{name}' for name in _ORG)} "  # noqa: S608 - ours
    "FROM accounts_apitoken t JOIN accounts_org o ON o.id = t.org_id "
    "WHERE t.id = %s AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %s)"
)


@dataclass(frozen=True, slots=True)
class _Copy:
    org: Org
    scopes: frozenset[str]
    expires_at: dt.datetime | None
    rights_as_at: int


_copies: dict[tuple[int, int], _Copy] = {}  # by epoch, so that nothing outlives a restore, and token
_lock = threading.Lock()


def own_org(tx: Transaction, scope: str) -> Org:
    """`access.org` and `access.recheck` at once, for the actor's own org. Raises Forbidden, NotFound."""
    actor = tx.actor
    if actor.kind != "token":
        found = access.org(actor, None)
        access.recheck(actor, scope, found.pk)
        return found
    copy = None if tx.fresh or tx.moves_rights else _copies.get((tx.epoch, actor.id))
    expired = copy is not None and copy.expires_at is not None and copy.expires_at <= tx.at
    if copy is None or expired or scope not in copy.scopes:  # a refusal is decided on what is so, too
        return _read(tx, scope)
    tx.rely_on(copy.rights_as_at)
    return copy.org


def _read(tx: Transaction, scope: str) -> Org:
    connection = connections[DEFAULT_DB_ALIAS]
    as_at = fence.rights_index(connection)
    with connection.cursor() as cursor:
        cursor.execute(_READ, [tx.actor.id, clock.sql(tx.at)])
        row = cursor.fetchone()
    if row is None:
        raise Forbidden("The token was revoked.", code="token_revoked")
    role, narrowed, platform, expires_at, *columns = row
    given = orjson.loads(narrowed) if isinstance(narrowed, (str, bytes)) else narrowed
    scopes = roles.scopes_of(role, given, platform=bool(platform))
    if scope not in scopes:
        raise Forbidden(f"The scope {scope} is missing.", code="missing_scope")
    org = Org.from_db(DEFAULT_DB_ALIAS, _ORG, columns)
    if not tx.moves_rights:  # what this transaction itself has changed may yet be undone
        _keep((tx.epoch, tx.actor.id), _Copy(org, scopes, _time(expires_at), as_at))
    return org


def _keep(key: tuple[int, int], copy: _Copy) -> None:
    with _lock:
        if len(_copies) >= _KEPT:
            _copies.clear()
        _copies[key] = copy


def _time(stored: dt.datetime | str | None) -> dt.datetime | None:
    """As a hand-made statement returns it: text from SQLite, naive from MySQL; both are UTC."""
    found = dt.datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return None if found is None else found.replace(tzinfo=dt.UTC)


def forget() -> None:
    """Between tests, which use the same ids again."""
    with _lock:
        _copies.clear()
