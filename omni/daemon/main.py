"""The daemon's life: from its signal handlers to its last page.

Owns how its parts are put together: the lease, the claims, the page, the announcements, and the loops that a leader
runs. Everything that it runs comes from the layers below; none of it runs anywhere else.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from django.conf import settings

from consensus import gate
from consensus.elected import ElectedLease
from consensus.lease import Candidacy, ConsensusUnavailable
from consensus.page import PageWriter
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient
from consensus.raft.page import RaftPage
from consensus.static import StaticLease
from observing import tracing
from omni.daemon.alarm import Alarm, OwnFile, Replicated
from omni.daemon.announcing import Announcer
from omni.daemon.bootstrap import bootstrap
from omni.daemon.claims import FenceClaims
from omni.daemon.leadership import Leadership
from omni.daemon.loops import Loop
from omni.daemon.mirror import EVERY_S as MIRROR_S
from omni.daemon.mirror import Mirror
from omni.daemon.own_web import OwnWeb
from omni.daemon.pulse import Pulse
from omni.daemon.recording import Recorder
from omni.daemon.work import leader_loops
from omni.kernel import clock, keys
from omni.kernel.config import Config
from omni.kernel.config_checks import WILDCARDS

TICK_S = 0.02  # how late an election won is acted upon
LEADING_TICK_S = 0.05  # whoever leads renews a page that holds for longer, and the fence knows first who is deposed
_HAND_OVER_S = 3.0
_LAST_WORDS_S = 20.0  # for so long our web workers, which end after us, send writes to the successor
_STILL_S = 0.5  # a main loop that stood still for longer is not fit to lead
_log = logging.getLogger("omni.daemon")


class LeaderWork:
    """The loops of `work.py`, made anew for each epoch."""

    def __init__(self, config: Config, lease: Candidacy, client: RaftClient | None, settle: Callable[[], None]) -> None:
        self._config, self._lease, self._client, self._settle = config, lease, client, settle
        self._loops: list[Loop | Pulse] = []

    def start(self, epoch: int) -> None:
        pulse = Pulse()
        loops = leader_loops(pulse, self._settle)
        if self._client is not None:
            mirror = Mirror(self._client, self._lease, self._config.me.id)
            loops.append(Loop("mirror", mirror.tick, MIRROR_S))
        for loop in loops:
            loop.start(epoch)
        pulse.start()
        self._loops = [*loops, pulse]

    def stop(self) -> None:
        for loop in self._loops:
            loop.stop()

    def join(self, timeout_s: float) -> None:
        until = clock.monotonic() + timeout_s
        for loop in self._loops:
            loop.join(max(0.0, until - clock.monotonic()))


class Daemon:
    def __init__(self) -> None:
        config = self._config = settings.CONFIG
        tracing.configure("daemon", config.me.id)
        self._elected = len(config.members) > 1
        self._stopping = False
        self._successor: str | None = None
        self._ticked_at = clock.monotonic()
        self._client = RaftClient(config.socket_path(f"raft-{config.me.port}"))
        lease = self._lease()
        gate.configure(lease, config.me.id)
        # the mirror has a line of its own: nothing that it waits for may hold up the end of this daemon
        mirrored = RaftClient(config.socket_path(f"raft-{config.me.port}")) if self._elected else None
        self._claims = FenceClaims(lease, keys.cluster_id(config), config.me.id, lambda: bootstrap(config))
        self._alarm = Alarm(self._orders(), lease.term, lambda: self._claims.silent_s)
        self._work = LeaderWork(config, lease, mirrored, self._alarm.keep)
        page = PageWriter(config.node_dir(config.me) / "lease")
        self._leadership = Leadership(lease, page, self._claims, self._work)
        self._announcer = Announcer(self._client, self._able)
        self._web = OwnWeb(_reached_at(config), config.me.port)
        self._recorder = Recorder(config.me.id)

    def _lease(self) -> Candidacy:
        me = self._config.me
        if not self._elected:
            return StaticLease(me.netloc)
        return ElectedLease(me.netloc, RaftPage(self._config.node_dir(me) / "raft.page"))

    def _orders(self) -> Replicated | OwnFile:
        """Where the alarm's order is kept; its line to Raft is its own."""
        me = self._config.me
        if not self._elected:
            return OwnFile(self._config.node_dir(me) / "alarm.json")
        return Replicated(RaftClient(self._config.socket_path(f"raft-{me.port}")))

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._claims.start()
        self._recorder.start()
        self._alarm.start()
        if self._elected:
            self._web.start()
            self._announcer.start()
        while not self._stopping:
            self._step()
        self._end()

    def _step(self) -> None:
        self._leadership.tick()
        self._ticked_at = clock.monotonic()
        time.sleep(LEADING_TICK_S if self._leadership.leads and not self._stopping else TICK_S)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True  # nothing more: a signal may come in the middle of anything

    def _able(self) -> bool | None:
        """What Raft is told: None (say nothing) while the main loop stands still."""
        if self._stopping:
            return False
        if clock.monotonic() - self._ticked_at > _STILL_S:
            return None
        return self._claims.able and self._web.listens

    def _end(self) -> None:
        """The leadership goes to another member first; then everything here may end without anybody noticing."""
        if self._elected:
            handing_over = threading.Thread(target=self._hand_over, name="hand-over", daemon=True)
            handing_over.start()
            while handing_over.is_alive():
                self._step()  # the page tells our web workers what goes on
            self._announcer.stop()
            self._web.stop()
        self._leadership.stop(self._successor, _LAST_WORDS_S)
        self._claims.stop()
        self._recorder.stop()
        self._alarm.stop()
        self._work.join(2.0)
        self._client.close()

    def _hand_over(self) -> None:
        """Until another member leads, as far as it can be brought about in a few seconds."""
        page, until = RaftPage(self._config.node_dir(self._config.me) / "raft.page"), clock.monotonic() + _HAND_OVER_S
        try:
            self._client.announce(False)
            while clock.monotonic() < until:
                view = page.view()
                if view.role == "leader":
                    self._successor = self._client.transfer(None, until - clock.monotonic())
                    _log.info("handed the leadership over to %s", self._successor)
                    return
                if view.leader is not None:
                    self._successor = view.leader
                    return
                time.sleep(TICK_S)  # it is under way already, because we announced that we are not able
        except (ConsensusUnavailable, CommandUnknown, CommandRefused) as error:
            _log.info("the leadership was not handed over: %s", error)


def _reached_at(config: Config) -> str:
    """Where this member's web server is reached from this host."""
    listens = config.listen_address
    return config.me.address if listens in WILDCARDS else listens
