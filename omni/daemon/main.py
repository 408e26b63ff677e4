"""The daemon's life: from its signal handlers to its last page.

Owns which loops a leader runs. Everything that it runs comes from the layers below; none of it runs anywhere else.
"""

from __future__ import annotations

import logging
import signal
import threading

from django.conf import settings

from accounts import services as accounts
from consensus import gate
from consensus.page import PageWriter
from consensus.static import StaticLease
from omni.daemon.leadership import RENEW_S, Leadership
from omni.daemon.loops import Loop
from omni.daemon.work import leader_loops
from omni.kernel import keys
from omni.kernel.context import system

_log = logging.getLogger("omni.daemon")


class Daemon:
    def __init__(self) -> None:
        config = settings.CONFIG
        self._config = config
        self._loops: list[Loop] = []
        self._stop = threading.Event()
        lease = StaticLease(config.me.netloc, config.leader_candidate.netloc)
        gate.configure(lease, config.me.id)
        self._leadership = Leadership(
            lease,
            PageWriter(config.node_dir(config.me) / "lease"),
            keys.cluster_id(config),
            config.me.id,
            self._start_work,
            self._stop_work,
        )

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        while not self._stop.is_set():
            self._leadership.tick()
            self._stop.wait(RENEW_S)
        self._leadership.stop()

    def _start_work(self) -> None:
        """After the claim, before the page says that we lead: the first write proves the fence."""
        self._bootstrap()
        self._loops = leader_loops()
        for loop in self._loops:
            loop.start()

    def _stop_work(self) -> None:
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join(2.0)
        self._loops = []

    def _bootstrap(self) -> None:
        token_file, password_file = self._config.state / "admin.token", self._config.state / "admin.password"
        if not token_file.exists():
            _log.warning("no admin.token in the state directory: nobody was bootstrapped")
            return
        token = token_file.read_text().strip()
        password = password_file.read_text().strip() if password_file.exists() else ""
        gate.run(
            lambda tx: accounts.bootstrap(tx, admin_token=token, admin_password=password),
            actor=system("bootstrap"),
            cause="first start",
        )
