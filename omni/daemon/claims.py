"""Claims the fence as soon as this member was elected, and watches that it stays ours and that the database answers.

Owns the one thread of the daemon that waits for the database, its connection (kept warm, so that a claim costs a few
round trips), and the verdict whether this member is able to lead at all. Must not decide who leads: the lease does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import DEFAULT_DB_ALIAS, Error, connections

from consensus import fence
from consensus.impatient import be_impatient
from consensus.lease import Candidacy
from omni.kernel import clock, failpoints
from omni.kernel.errors import OmniError

CHECK_S = 1.0
# A database that is silent for so long does not answer us. A leader takes longer to say so than the others: when it
# answers nobody, they have said so first, and a leadership that would help nobody stays where it is.
ABLE_S, ABLE_LEADER_S = 2.0, 4.0
_BACKOFF_S = (0.05, 0.1, 0.2, 0.4, 1.0)
_FOREIGN_S = 5.0
_MOST_STARTS = 5  # tries, about a second apart: a leader that cannot begin its work makes room for one that can
_log = logging.getLogger("omni.leadership")


class FenceClaims:
    """`prepare` runs after each claim; before any write is taken only when nothing was ever written."""

    def __init__(self, lease: Candidacy, cluster_id: str, member: str, prepare: Callable[[], None]) -> None:
        self._lease, self._cluster_id, self._member, self._prepare = lease, cluster_id, member, prepare
        self._claim: fence.Claim | None = None
        self._term: int | None = None  # of the claim
        self._prepared = False
        self._starts = 0  # tries to prepare that failed, since the claim
        self._serving = 0
        self._failures = 0
        self._answered_at: float | None = None
        self._began = clock.monotonic()
        self._failing = False  # the last check
        self._refused = False  # it answers and yet takes no claim of ours
        self._complaint = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="claims", daemon=True)

    @property
    def serving(self) -> int:
        return self._serving

    @property
    def silent_s(self) -> float:
        """For so long the database has not answered this daemon."""
        answered = self._answered_at
        return clock.monotonic() - (self._began if answered is None else answered)

    @property
    def able(self) -> bool:
        """Whether the database answers this member and takes its claims."""
        answered = self._answered_at
        if answered is None or self._refused:
            return False
        silent_s = clock.monotonic() - answered
        if self._lease.term() is not None:
            return silent_s < ABLE_LEADER_S
        return silent_s < ABLE_S and not self._failing

    def elected(self, term: int) -> None:
        self._failures = 0
        self._wake.set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a call that hangs."""
        self._stop.set()
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        be_impatient()
        while not self._stop.is_set():
            try:
                pause = self.step()
            except Exception:
                _log.exception("leadership: a step failed and will be repeated")
                connections.close_all()
                pause = CHECK_S
            self._wake.wait(pause)
            self._wake.clear()
        connections.close_all()

    def step(self) -> float:
        """Claim what is ours to claim, else look at the fence; the seconds until the next step."""
        term = self._lease.term()
        if term is not None and (self._claim is None or self._term != term):
            return self._try_to_claim(term)
        self._check()
        if self._claim is not None and term is not None and not self._prepared:
            self._finish()
        return CHECK_S

    def _try_to_claim(self, term: int) -> float:
        self._serving = 0
        try:
            claim = fence.claim(self._cluster_id, self._member)
        except fence.ForeignCluster as foreign:
            self._refuse(f"cannot lead: {foreign}")
            return _FOREIGN_S
        except fence.ClaimLost as lost:
            return self._later(f"cannot lead: {lost}")
        except (Error, OmniError) as error:
            connections.close_all()
            self._refused = self._read() is not None  # then let another one lead whose claim it takes
            return self._later(f"cannot lead: {error}")
        failpoints.hit("claimed_before_serve")
        self._claim, self._term, self._prepared, self._starts = claim, term, False, 0
        self._answered_at, self._failing, self._refused = clock.monotonic(), False, False
        self._failures, self._complaint = 0, ""
        self._lease.grant(term, claim.epoch, claim.claim_id)
        if claim.write_index:  # the platform exists: whoever waits to write need not wait for our checks
            self._serving = claim.epoch
        self._finish()
        _log.info("leading under epoch %d (term %d) from write index %d", claim.epoch, term, claim.write_index)
        return CHECK_S

    def _finish(self) -> None:
        """What a leader sees to before anything else; repeated until it worked, or somebody else had better try."""
        if self._claim is None:
            return
        try:
            self._prepare()
        except Exception as error:
            known = isinstance(error, (Error, OmniError))
            self._complain(f"leading, but the start-up is not finished: {error}", trace=None if known else error)
            connections.close_all()
            self._starts += 1
            if self._starts >= _MOST_STARTS:
                self._refuse(f"the start-up of a leader failed {self._starts} times here: {error}")
            return
        self._prepared = True
        self._serving = self._claim.epoch

    def _check(self) -> None:
        """Somebody may have claimed after us. A database that does not answer deposes nobody."""
        found = self._read()
        if found is None:
            return
        epoch, _, cluster, holder = found
        if cluster not in ("", self._cluster_id):
            self._refuse(str(fence.ForeignCluster(cluster, self._cluster_id)))
        elif self._refused and self._lease.term() is None:
            self._refused = False  # the next claim will tell
        if self._claim is not None and epoch != self._claim.epoch:
            self._step_down(f"{holder or 'somebody'} has claimed epoch {epoch}")

    def _read(self) -> tuple[int, int, str, str] | None:
        """The fence; once more on a new connection, because the old one may just have been idle for too long."""
        connections[DEFAULT_DB_ALIAS].close_if_unusable_or_obsolete()
        for _ in range(2):
            try:
                found = fence.read()
            except Error as error:
                connections.close_all()
                problem = error
            else:
                self._answered_at, self._failing = clock.monotonic(), False
                return found
        self._failing = True
        self._complain(f"the database does not answer: {problem}")
        return None

    def _step_down(self, reason: str) -> None:
        if self._lease.term() == self._term:
            _log.warning("stepping down: %s", reason)
        else:
            _log.info("no longer the leader: %s", reason)
        self._serving, self._claim, self._term = 0, None, None
        self._lease.revoke()

    def _refuse(self, reason: str) -> None:
        self._refused = True
        if self._claim is not None:
            self._step_down(reason)
        self._complain(reason)

    def _later(self, complaint: str) -> float:
        self._complain(complaint)
        pause = _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
        self._failures += 1
        return pause

    def _complain(self, text: str, trace: Exception | None = None) -> None:
        if text != self._complaint:  # once, not at every step
            _log.error("%s", text, exc_info=trace)
        self._complaint = text
