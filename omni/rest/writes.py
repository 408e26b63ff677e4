"""How a view changes something: one verb in the gate, answered once per Idempotency-Key, rehearsed on request.

Owns If-Match, Idempotency-Key (DECISIONS 8), `?dry_run=true` and the headers of a write's answer. Knows no domain.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.conf import settings
from django.db import Error, IntegrityError, connection
from rest_framework.request import Request
from rest_framework.response import Response

from consensus import fence, gate
from consensus.gate import Transaction
from consensus.models import StoredReply
from omni.kernel import clock
from omni.kernel.errors import FieldError, InvalidInput, OmniError, StaleRevision
from omni.kernel.pipeline import Statement
from omni.kernel.seal import seal, unseal
from omni.rest import index
from omni.rest.paging import flag_parameter
from omni.rest.permissions import actor_of
from omni.rest.rendering import Rendered, dumps

_KEY_LENGTH = 200
_FORGET = "DELETE FROM consensus_storedreply WHERE scope = %s AND created_at < %s"
_KEEP = (
    "INSERT INTO consensus_storedreply (scope, fingerprint, status, body, etag, location, created_at, write_index) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, "
)


@dataclass(slots=True)
class Reply:
    """What a write answers. `plan` is what a dry run shows: which instances would start, stop, where and why."""

    data: Any
    status: int = 200
    revision: int | None = None
    location: str = ""
    plan: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return "" if self.revision is None else etag(self.revision)


def etag(revision: int) -> str:
    return f'"{revision}"'


def is_dry_run(request: Request) -> bool:
    return flag_parameter(request, "dry_run", False)


def expected_revision(request: Request) -> int | None:
    """The revision that If-Match demands; None when it demands none."""
    given = request.headers.get("If-Match", "").strip()
    if given in ("", "*"):
        return None
    text = given.strip('"')
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise StaleRevision("The If-Match is not an ETag of this object.", next="GET the object")
    return int(text)


def check_revision(actual: int, expected: int | None) -> None:
    """To be called inside the gate, on the row as it is there. Raises StaleRevision."""
    if expected is not None and actual != expected:
        raise StaleRevision(f"The object is at revision {actual}, not {expected}.", next="GET the object and try again")


def no_body(request: Request) -> None:
    """For a write that takes no input: what came must be empty. Raises Malformed, UnsupportedMedia, InvalidInput."""
    if not request.data:
        return
    names = sorted(request.data) if isinstance(request.data, dict) else [""]
    problems = [FieldError(f"/{name}", "unknown_field", "This call takes no fields.") for name in names]
    raise InvalidInput("This call takes no body.", errors=problems)


def perform(
    request: Request, verb: Callable[[Transaction], Reply], *, cause: str = "", fingerprint: str = ""
) -> Response:
    """Run `verb` in the gate and answer. `fingerprint` stands for a body that is not JSON (an artifact's sha256)."""
    actor = actor_of(request)
    cause = cause or f"{request.method} {request.path}"
    if is_dry_run(request):
        reply = gate.rehearse(verb, actor=actor, cause=cause)
        shown = {"dry_run": True, "object": reply.data, "plan": reply.plan or {"actions": []}}
        return Response(shown, headers={"Omni-Outcome": "not-applied"})
    key = _Key.of(request, fingerprint)
    if key is not None and (stored := key.stored()) is not None:
        return stored

    def in_gate(tx: Transaction) -> Reply:
        reply = verb(tx)
        if key is not None and reply.status < 300:
            key.keep(tx, reply)
        return reply

    try:
        reply, at = gate.run(in_gate, actor=actor, cause=cause)
    except (OmniError, IntegrityError) as refusal:
        # the same key may have won at the same moment: then its answer is ours
        if key is not None and (stored := _kept(key, refusal)) is not None:
            return stored
        raise
    index.seen(at)
    return _answer(dumps(reply.data), reply.status, at, reply.etag, reply.location, reply.headers)


def _kept(key: _Key, refusal: Exception) -> Response | None:
    """The key's answer. A database that cannot be asked changes nothing about what is known: then `refusal` stands."""
    try:
        return key.stored()
    except Error:
        raise refusal from None


def _answer(
    body: bytes, status: int, at: int, tag: str, location: str, extra: dict[str, str] | None = None
) -> Response:
    headers = {"Omni-Index": str(at), "Omni-Outcome": "applied", "Cache-Control": "no-store", **(extra or {})}
    if tag:
        headers["ETag"] = tag
    if location:
        headers["Location"] = location
    return Rendered(body if body != b"null" else b"", status, headers)


@dataclass(frozen=True, slots=True)
class _Key:
    """An Idempotency-Key of one principal, and what it was sent with."""

    scope: str
    fingerprint: str

    @classmethod
    def of(cls, request: Request, fingerprint: str) -> _Key | None:
        scope = key_scope(request)
        return cls(scope, fingerprint_of(request, fingerprint)) if scope else None

    def stored(self) -> Response | None:
        """The first answer again. Raises InvalidInput when the key was used for another request."""
        oldest = clock.now() - dt.timedelta(seconds=settings.CONFIG.timings.idempotency_ttl_s)
        row = StoredReply.objects.filter(scope=self.scope, created_at__gte=oldest).first()
        if row is None:
            return None
        if row.fingerprint != self.fingerprint:
            raise InvalidInput(
                "This Idempotency-Key was used for another request.",
                code="idempotency_key_reused",
                next="repeat the request with a new key",
            )
        body = str(unseal(row.body)).encode()
        return _answer(body, row.status, row.write_index, row.etag, row.location, {"Omni-Replayed": "true"})

    def keep(self, tx: Transaction, reply: Reply) -> None:
        """Have the gate write the answer behind the fence, in place of one that is too old to be replayed."""
        oldest = tx.at - dt.timedelta(seconds=settings.CONFIG.timings.idempotency_ttl_s)
        body = seal(dumps(reply.data).decode())
        values = [self.scope, self.fingerprint, reply.status, body, reply.etag, reply.location, clock.sql(tx.at)]
        tx.after_fence += [
            Statement(_FORGET, [self.scope, clock.sql(oldest)]),
            Statement(f"{_KEEP}{fence.index_sql(connection)})", values),
        ]


def key_scope(request: Request) -> str:
    """What an Idempotency-Key is unique in: principal and key, hashed. Empty without one. Raises InvalidInput."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return ""
    if not 1 <= len(given) <= _KEY_LENGTH or not given.isprintable():
        detail = f"1 to {_KEY_LENGTH} printable characters are wanted."
        raise InvalidInput("The Idempotency-Key is not valid.", errors=[FieldError("/", "invalid", detail)])
    actor = actor_of(request)
    return hashlib.sha256(f"{actor.kind}:{actor.id}:{given}".encode()).hexdigest()


def fingerprint_of(request: Request, extra: str) -> str:
    """What makes two requests the same: method, path, query and body, whatever the order of the fields."""
    query = sorted((name, value) for name, values in request.query_params.lists() for value in values)
    body = b"" if extra else orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    parts = [str(request.method).encode(), request.path.encode(), orjson.dumps(query), extra.encode(), body]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
