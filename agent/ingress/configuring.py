"""Keeping Caddy's configuration in step with the few hosts that want something of their own.

Owns when to reload: only when a policy has changed, and not more than about once a second, because every reload closes
idle connections.
"""

from __future__ import annotations

import asyncio
import logging

from agent.ingress.caddy_config import Layout, build
from agent.ingress.caddy_process import CaddyProcess
from agent.ingress.policies import HostPolicy, policies_of
from agent.ingress.table import RouteTable

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class Configuring:
    """`begin` once, before anything is served; then `run` for ever."""

    def __init__(self, caddy: CaddyProcess, layout: Layout, table: RouteTable) -> None:
        self._caddy, self._layout, self._table = caddy, layout, table
        self._policies: tuple[HostPolicy, ...] = ()
        self._changed = asyncio.Event()
        table.on_change(self._changed.set)

    async def begin(self) -> str:
        """Have Caddy serve what the stored routes say; how it came to run."""
        self._policies = policies_of(self._table.routes())
        return await self._caddy.ensure(build(self._layout, self._policies))

    async def run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = policies_of(self._table.routes())
            if wanted == self._policies:
                continue
            if await self._caddy.reconfigure(build(self._layout, wanted)):
                log.info("caddy serves %d hosts by policies of their own", len(wanted))
                self._policies = wanted
            else:
                self._changed.set()  # again after the pause
            await asyncio.sleep(PAUSE_S)
