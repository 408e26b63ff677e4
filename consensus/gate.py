"""The gate: every change of control-plane state passes here, in one fenced transaction.

Owns the transaction of a write from the lease check to COMMIT, its numbering, its events and its stored answer.
A verb gets a `Transaction`, which is its proof that it runs inside. Must not know any verb.

    gate.run(verb, actor=..., cause=...)        run a verb; the whole of it again on a deadlock or lock wait
    gate.rehearse(verb, ...)                    run it, keep its result, undo it (dry run)
    gate.maintenance("why")                     migrations and tests only: writes without the fence
    gate.pin(epoch)                             this thread writes under this epoch or not at all
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from consensus import event_rows, fence, full_disk, sqlite_lock
from consensus.lease import ConsensusUnavailable, Held, Lease
from observing import tracing
from omni.kernel import clock, failpoints, measures, pipeline
from omni.kernel.context import Actor, request_id
from omni.kernel.errors import DatabaseUnavailable, NoLeader, NotLeader, OutcomeUnknown, StorageFull
from omni.kernel.events import EventDraft
from omni.kernel.models import ORDINALS
from omni.kernel.pipeline import Statement
from omni.kernel.tables import RIGHTS_TABLES

Result = TypeVar("Result")

_RETRYABLE = {1205, 1213}  # lock wait time-out, deadlock (Galera's certification failure too)
_TRIES = 4
_log = logging.getLogger("omni.gate")


class Outdated(Exception):
    """A verb decided on a copy of a right, and rights have changed since: it runs again, without copies."""


@dataclass(slots=True)
class Transaction:
    """A verb's proof that it runs inside the gate, and the place where it says what it did."""

    actor: Actor
    cause: str
    at: dt.datetime
    epoch: int
    rehearsal: bool = False
    events: list[EventDraft] = field(default_factory=list)
    write_index: int | None = None  # known once the fence has numbered the transaction
    before_fence: list[Statement] = field(default_factory=list)  # writes whose results the verb does not need
    after_fence: list[Statement] = field(default_factory=list)  # kept answers, with the number (`fence.index_sql`)
    after_commit: list[Callable[[], None]] = field(default_factory=list)  # effects that may be lost
    fresh: bool = False  # decide on no copies
    rights_as_at: int | None = None  # the age of the copies that the verb decided on
    moves_rights: bool = False
    _wrote: bool = False

    def record(
        self,
        kind: str,
        object_type: str,
        object_id: int,
        *,
        org_id: int | None = None,
        app_id: int | None = None,
        change: dict[str, Any] | None = None,
        cause: str | None = None,
    ) -> None:
        """Say what changed. Every verb that writes records at least one event."""
        if len(self.events) >= ORDINALS:
            raise RuntimeError("one transaction recorded more events than an index has room for")
        self.events.append(EventDraft(kind, object_type, object_id, org_id, app_id, change or {}, cause))

    def wrote(self, table: str) -> None:
        self._wrote = True
        if table in RIGHTS_TABLES or table == "?":
            self.moves_rights = True

    def rely_on(self, rights_as_at: int) -> None:
        """The verb decides on a copy of rights as they were at that write; the fence says whether they still are so."""
        if self.rights_as_at not in (None, rights_as_at):
            raise Outdated
        self.rights_as_at = rights_as_at

    @property
    def dirty(self) -> bool:
        return self.writes or bool(self.events) or bool(self.after_fence)

    @property
    def writes(self) -> bool:
        """Whether the verb changed rows; a kept answer alone is no change."""
        return self._wrote or bool(self.before_fence)


@dataclass(slots=True)
class _Settings:
    lease: Lease | None = None
    member: str = ""


_settings = _Settings()
_pinned = threading.local()


def configure(lease: Lease, member: str) -> None:
    """Once per process, at start-up: where this process reads the leadership, and who it is."""
    _settings.lease = lease
    _settings.member = member


def lease() -> Lease:
    if _settings.lease is None:
        raise RuntimeError("consensus.gate was not configured in this process")
    return _settings.lease


def member() -> str:
    return _settings.member


def leads() -> bool:
    """Whether this member believes that it may write. An opinion; the fence decides."""
    try:
        return isinstance(lease().current(), Held)
    except ConsensusUnavailable:
        return False


def run(
    verb: Callable[[Transaction], Result], *, actor: Actor, cause: str, using: str = DEFAULT_DB_ALIAS
) -> tuple[Result, int]:
    """Run `verb` in a fenced transaction; returns its result and the write index it got (or the current one).

    Raises NotLeader/NoLeader or DatabaseUnavailable when nothing happened, OutcomeUnknown when the connection broke
    during COMMIT, and whatever the verb raises (nothing is kept then).
    """
    held, fresh = _held(), False
    for attempt in range(1, _TRIES + 2):
        tx = Transaction(actor, cause, clock.now(), held.epoch, fresh=fresh)
        try:
            with tracing.span("commit", cause=cause, actor=actor.label):
                result = _once(tx, verb, held, using)
        except OperationalError as error:
            if attempt >= _TRIES or not _another_try(error, attempt, connections[using]):
                raise DatabaseUnavailable(f"the database refused the transaction: {_brief(error)}") from error
            time.sleep(random.uniform(0.005, 0.03) * attempt)  # noqa: S311
            continue
        except Outdated:
            fresh = True
            continue
        except InterfaceError as error:
            raise DatabaseUnavailable(f"the database connection was lost: {_brief(error)}") from error
        failpoints.hit("after_commit_before_reply")
        for effect in tx.after_commit:
            try:
                effect()
            except Exception:  # it may be lost; an error now would be told as not-applied
                _log.exception("committed as %s, but an effect behind it failed (%s)", tx.write_index, cause)
        return result, tx.write_index if tx.write_index is not None else fence.write_index(using)
    raise AssertionError("unreachable")


def rehearse(
    verb: Callable[[Transaction], Result], *, actor: Actor, cause: str, using: str = DEFAULT_DB_ALIAS
) -> Result:
    """Run `verb`, keep its result and undo everything it wrote: the truth behind `?dry_run=true`."""
    held, connection = _held(), connections[using]
    tx = Transaction(actor, cause, clock.now(), held.epoch, rehearsal=True, fresh=True)
    with sqlite_lock.held(connection), _permit(connection, tx), transaction.atomic(using=using):
        result = verb(tx)
        pipeline.run(connection, tx.before_fence)
        transaction.set_rollback(True, using=using)
    return result


@contextlib.contextmanager
def maintenance(reason: str, using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Writes without lease and fence: `migrate`, restore, and the set-up of tests. Never for a verb."""
    tx = Transaction(Actor("system", name="maintenance"), reason, clock.now(), 0)
    with _permit(connections[using], tx):
        yield


def pin(epoch: int) -> None:
    """What this thread decides from now on was seen under `epoch`, and is written under it or not at all.

    For the leader's loops: a tick that began under an old term must not commit under a new one of the same member.
    """
    _pinned.epoch = epoch


def _held() -> Held:
    try:
        answer = lease().current()
    except ConsensusUnavailable as unavailable:
        raise NoLeader(str(unavailable)) from unavailable
    if not isinstance(answer, Held):
        raise NotLeader(answer.leader)
    if answer.valid_until <= clock.monotonic():
        raise NotLeader(None)
    if getattr(_pinned, "epoch", answer.epoch) != answer.epoch:
        raise NotLeader(None)
    return answer


def _once(tx: Transaction, verb: Callable[[Transaction], Result], held: Held, using: str) -> Result:
    connection = connections[using]
    committing = False
    begun = time.perf_counter()
    try:
        with sqlite_lock.held(connection), _permit(connection, tx), transaction.atomic(using=using, durable=True):
            result = verb(tx)
            if tx.dirty:
                _seal(tx, connection, held)
            committing = tx.dirty
        if committing:
            measures.commit_seconds.observe(time.perf_counter() - begun)
        return result
    except Error as error:
        if full_disk.kept_nothing(error, committing=committing):
            raise StorageFull("The database's disk is full.", next="free space, then repeat the request") from error
        if committing and not (error.args and error.args[0] in _RETRYABLE):
            raise OutcomeUnknown(f"the connection broke while committing: {_brief(error)}") from error
        raise


def _another_try(error: OperationalError, attempt: int, connection: BaseDatabaseWrapper) -> bool:
    """Whether the whole transaction, of which nothing was committed, is worth another run; once on another server."""
    if error.args and error.args[0] in _RETRYABLE:
        return True
    elsewhere = getattr(connection, "may_ask_elsewhere", None)
    if attempt > 1 or elsewhere is None or not elsewhere(error):
        return False
    connection.close()
    return True


def _seal(tx: Transaction, connection: BaseDatabaseWrapper, held: Held) -> None:
    """What the verb left to write, the fence, the rows that carry its number: in one packet where that is possible.

    The fence's result is looked at before anything behind it, and COMMIT is sent by the caller when all of it was well.
    Nothing slow may stand between here and there.
    """
    if tx.writes and not tx.events:
        raise RuntimeError(f"a verb changed rows and recorded no event: {tx.cause}")
    failpoints.hit("before_fence")

    def numbered(result: pipeline.Result) -> None:
        tx.write_index = fence.numbered(connection, result)
        if tx.write_index is None and tx.rights_as_at is not None:
            raise Outdated  # or deposed: the next run, which relies on nothing, will tell
        if tx.write_index is None:
            measures.fence_refusals.inc()
            _log.warning("deposed: the fence refused epoch %d (%s)", held.epoch, tx.cause)
            raise NotLeader(None)

    moves_rights = tx.moves_rights or any(table in one.sql for one in tx.before_fence for table in RIGHTS_TABLES)
    advance = fence.advancing(connection, held.epoch, numbered, moves_rights=moves_rights, rights_as_at=tx.rights_as_at)
    stamp = event_rows.Stamp(
        tx.at, held.epoch, held.claim_id, _settings.member, tx.actor.label, tx.cause, request_id.get()
    )
    events = event_rows.statements(connection, tx.events, stamp)
    pipeline.run(connection, [*tx.before_fence, advance, *events, *tx.after_fence])
    failpoints.hit("fenced_before_commit")


@contextlib.contextmanager
def _permit(connection: BaseDatabaseWrapper, tx: Transaction) -> Iterator[None]:
    if getattr(connection, "omni_write_permit", None) is not None and tx.epoch:
        raise RuntimeError("the gate must be the outermost transaction")
    before = getattr(connection, "omni_write_permit", None)
    connection.omni_write_permit = tx  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.omni_write_permit = before  # type: ignore[attr-defined]


def _brief(error: BaseException) -> str:
    return " ".join(str(part) for part in error.args)[:200]
