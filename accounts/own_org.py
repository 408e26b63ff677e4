"""The org and the rights of a token on the busiest write path: decided on a copy, proven before the commit.

Owns a copy of each token's org in this process. A verb decides on it without asking; the proof that neither token nor
org has changed since (each change moves a row's revision) goes with the fence, in the same packet. Without the proof
the gate undoes everything and runs the verb again on what is so now. The copies are for reading; nobody may change one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import orjson
from django.db import DEFAULT_DB_ALIAS, connections

from accounts import access, roles
from accounts.models import Org
from consensus.gate import Outdated, Transaction
from omni.kernel import clock
from omni.kernel.errors import Forbidden
from omni.kernel.pipeline import Result, Statement

_KEPT = 5_000
_ORG = ("id", "name", "max_apps", "max_instances", "max_memory_mb", "max_builds_at_once", "revision")
_VALID = "t.id = %s AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > %s)"
_FROM = "FROM accounts_apitoken t JOIN accounts_org o ON o.id = t.org_id"
_READ = (
    f"SELECT t.role, t.scopes, t.platform, t.revision, {', '.join(f'o.{name}' for name in _ORG)} {_FROM} WHERE {_VALID}"
)
_PROOF = f"SELECT 1 {_FROM} WHERE {_VALID} AND t.revision = %s AND o.revision = %s"


@dataclass(frozen=True, slots=True)
class _Copy:
    org: Org
    scopes: frozenset[str]
    revision: int  # of the token


_copies: dict[tuple[int, int], _Copy] = {}  # by epoch, so that nothing outlives a restore, and token
_lock = threading.Lock()


def own_org(tx: Transaction, scope: str) -> Org:
    """`access.org` and `access.recheck` at once, for the actor's own org. Raises Forbidden, NotFound."""
    actor = tx.actor
    if actor.kind != "token":
        found = access.org(actor, None)
        access.recheck(actor, scope, found.pk)
        return found
    key = (tx.epoch, actor.id)
    copy = _copies.get(key)
    if copy is None or scope not in copy.scopes:  # a refusal is decided on what is so, too
        return _read(tx, key, scope)

    def prove(result: Result) -> None:
        if not result.rows:
            _copies.pop(key, None)
            raise Outdated(f"token {actor.id} or its org has changed")

    values = [actor.id, clock.sql(tx.at), copy.revision, copy.org.revision]
    tx.proofs.append(Statement(_PROOF, values, prove))
    return copy.org


def _read(tx: Transaction, key: tuple[int, int], scope: str) -> Org:
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(_READ, [tx.actor.id, clock.sql(tx.at)])
        row = cursor.fetchone()
    if row is None:
        raise Forbidden("The token was revoked.", code="token_revoked")
    role, narrowed, platform, revision, *columns = row
    given = orjson.loads(narrowed) if isinstance(narrowed, (str, bytes)) else narrowed
    scopes = roles.scopes_of(role, given, platform=bool(platform))
    if scope not in scopes:
        raise Forbidden(f"The scope {scope} is missing.", code="missing_scope")
    org = Org.from_db(DEFAULT_DB_ALIAS, _ORG, columns)
    with _lock:
        if len(_copies) >= _KEPT:
            _copies.clear()
        _copies[key] = _Copy(org, scopes, int(revision))
    return org


def forget() -> None:
    """Between tests, which use the same ids again."""
    with _lock:
        _copies.clear()
