"""Tells people that the platform's database is dead, while it is.

Owns the thread that does so on the member that was elected, whether or not it could claim the fence, and the place
where its order is kept without the database: the replicated state, or a file of the only member. What is told, and
what is written down afterwards, is `services.outage`'. Must not touch the database but in `keep`, which the leader's
watch calls when it answers.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from consensus import gate
from consensus.lease import ConsensusUnavailable
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient
from omni.kernel import clock
from omni.kernel.context import system
from omni.outgoing.retries import WEBHOOKS
from services import outage, outcomes
from services.outage import RECORD, Order

EVERY_S = 1.0
KEEP_S = 10.0  # so old may a silence be that is not known when the database dies
_LOOKS = 3  # in a row: a daemon that stood still has heard nothing of anybody, and that is no dead database
_TIMEOUT_S = 2.0
_AWAY = (ConsensusUnavailable, CommandUnknown, CommandRefused, OSError)
_log = logging.getLogger("omni.daemon")


class Store(Protocol):
    """Where the order outlives this process without the database. Both raise what is in `_AWAY`."""

    def read(self) -> Any: ...

    def write(self, record: dict[str, str]) -> None: ...


class Replicated:
    """In the state that all members have."""

    def __init__(self, client: RaftClient) -> None:
        self._client = client

    def read(self) -> Any:
        return self._client.status(_TIMEOUT_S)["state"]["services"].get(RECORD)

    def write(self, record: dict[str, str]) -> None:
        self._client.submit({"op": "service.set", "v": 1, "name": RECORD, **record}, _TIMEOUT_S)


class OwnFile:
    """Of a platform of one member."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Any:
        try:
            return orjson.loads(self._file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def write(self, record: dict[str, str]) -> None:
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        fresh.write_bytes(orjson.dumps(record))
        fresh.replace(self._file)


class Alarm:
    """`term` is that of our election, None when we were not elected; `silent_s` is how long the database has been."""

    def __init__(self, store: Store, term: Callable[[], int | None], silent_s: Callable[[], float]) -> None:
        self._store, self._term, self._silent_s = store, term, silent_s
        self._lock = threading.Lock()  # of the order: the thread tells, the watch keeps
        self._order: Order | None = None
        self._read_in: int | None = None  # the term in which the order was read; another leader may have changed it
        self._looks = 0
        self._kept_at = float("-inf")
        self._tries: dict[tuple[str, str], tuple[int, float]] = {}  # by key and channel: so many, the next not before
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alarm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a receiver that hangs."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self.tick()
            except Exception:
                _log.exception("the alarm of the database failed and will be repeated")

    def tick(self) -> None:
        """Tell what is due, if the database is dead and nobody has been told."""
        term, silent_s = self._term(), self._silent_s()
        if term is None or silent_s < outage.DEAD_S:
            self._looks = 0
            return
        self._looks += 1
        channels = outcomes.channels()
        if self._looks < _LOOKS or not channels:
            return
        order = self._begin(term, silent_s)
        for channel in channels if order is not None else ():
            if order is not None and channel not in order.told:
                self._try(order, channel)

    def keep(self) -> None:
        """With the database there: write down what was told without it, and what is to be done the next time."""
        term = self._term()
        if term is None or not outcomes.channels():
            return
        with self._lock:
            order = self._known(term)
        if order is not None and order.state == "dead":
            gate.run(lambda tx: outage.record_told(tx, order), actor=system("alerts"), cause="the database is back")
        elif clock.monotonic() - self._kept_at < KEEP_S:
            return
        wanted = outage.current()
        with self._lock:
            if wanted is None or wanted == self._order or self._write(wanted):
                self._kept_at = clock.monotonic()

    def _begin(self, term: int, silent_s: float) -> Order | None:
        """The order that is to be carried out, written down before anybody is told; None: nothing is to be told."""
        with self._lock:
            known = self._known(term)
            if known is None:
                return None
            order = outage.begun(known, silent_s, clock.now())
            if order.state != "dead" or (order != known and not self._write(order)):
                return None
        if order != known:
            _log.error("the database has been silent for %.0f s; whoever is to be told of alerts is told", silent_s)
        return order

    def _try(self, order: Order, channel: str) -> None:
        tries, due = self._tries.get((order.key, channel), (0, 0.0))
        if clock.monotonic() < due:
            return
        outcome = outage.tell(order, channel)
        pause = None if outcome.final else WEBHOOKS.pause_s(tries + 1, random.random())  # noqa: S311
        self._tries[order.key, channel] = tries + 1, float("inf") if pause is None else clock.monotonic() + pause
        if not outcome.delivered:
            _log.warning("the dead database was not told by %s: %s", channel, outcome.detail)
            return
        with self._lock:
            now = self._order
            if now is not None and (now.state, now.key) == ("dead", order.key):  # else it is in the database already
                self._write(replace(now, told=(*now.told, channel)))

    def _known(self, term: int) -> Order | None:
        """The order as this leadership has it; read once a term."""
        if self._read_in != term:
            try:
                self._order = outage.of_record(self._store.read())
            except _AWAY as error:
                self._complain(error)
                return None
            self._read_in, self._kept_at = term, float("-inf")
        return self._order

    def _write(self, order: Order) -> bool:
        try:
            self._store.write(order.record())
        except _AWAY as error:
            self._complain(error)
            self._read_in = None  # nobody knows whether it was written
            return False
        self._order, self._complaint = order, ""
        return True

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            _log.warning("what is to be done when the database dies cannot be kept: %s", error)
        self._complaint = str(error)
