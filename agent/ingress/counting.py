"""From the access log to the control plane: reads, counts, sends, and remembers how far it came.

Owns `counting.json`: position in the log, open windows and unacknowledged rows in one file, so that no request is
counted twice or left out when this process is killed between two steps. Rows are numbered, so that the receiver knows
a repeated one. What nobody takes for long is dropped, oldest first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from agent.ingress.accesslog import AccessLog, Position
from agent.ingress.counts import Counter
from agent.ingress.follow import CONNECT_S, Members
from agent.ingress.table import write_json
from agent.plain import from_json
from agent.routing import RequestCount, RequestCounts

log = logging.getLogger(__name__)

READ_EVERY_S = 1.0
SEND_S = 10.0
MAX_PENDING = 100_000
BATCH = 5_000


class RequestCounting:
    """One log, one counter, one stream of rows."""

    def __init__(
        self, client: httpx.AsyncClient, members: Members, node: str, access_log: Path, state: Path, window_s: float
    ) -> None:
        self._client = client
        self._members = members
        self._node = node
        self._state = state
        self._counter = Counter(window_s)
        self._pending: list[RequestCount] = []
        self._source = secrets.token_hex(8)
        self._first_seq = 1  # the number of the first pending row
        self._log = AccessLog(access_log, self._restore())

    def _restore(self) -> Position | None:
        try:
            stored = orjson.loads(self._state.read_bytes())
            self._counter.restore(stored["open"])
            self._pending = [from_json(RequestCount, row) for row in stored["pending"]]
            if "source" in stored:
                self._source, self._first_seq = str(stored["source"]), int(stored["first_seq"])
            return Position(stored["inode"], stored["offset"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("stored counts cannot be read and are left aside: %s", error)
            return None

    async def save(self) -> None:
        position = self._log.position
        if position is None:
            return
        state: dict[str, Any] = {
            "inode": position.inode,
            "offset": position.offset,
            "open": self._counter.dump(),
            "pending": self._pending,
            "source": self._source,
            "first_seq": self._first_seq,
        }
        await asyncio.to_thread(write_json, self._state, state)

    async def run(self) -> None:
        while True:
            await self.read()
            await self.collect(time.time())
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Count what the log has grown by; lets others run between chunks, for DNS must not wait."""
        for lines in self._log.read():
            for line in lines:
                self._counter.add(line)
            await asyncio.sleep(0)

    async def collect(self, now: float) -> None:
        """Close the windows that have ended and send what is pending."""
        rows = self._counter.close(now)
        if rows:
            self._pending += rows
            self._drop(len(self._pending) - MAX_PENDING)
            await self.save()
        if self._pending and await self._send():
            await self.save()

    def _drop(self, count: int) -> None:
        """Forget the oldest rows: taken, refused, or too many."""
        if count > 0:
            self._pending = self._pending[count:]
            self._first_seq += count

    async def _send(self) -> bool:
        """True when at least one batch was taken."""
        taken = False
        while self._pending:
            batch = self._pending[:BATCH]
            body = orjson.dumps(RequestCounts(self._node, batch, self._source, self._first_seq))
            try:
                response = await self._client.post(
                    f"{self._members.current}/agent/requests",
                    content=body,
                    headers={"Content-Type": "application/json"},
                    timeout=httpx.Timeout(SEND_S, connect=CONNECT_S),
                )
                response.raise_for_status()
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 and error.response.status_code not in (401, 403, 404, 408, 429):
                    log.warning("request counts refused and dropped: %s", error)
                    self._drop(len(batch))
                    continue
                self._members.next()
                return taken
            except httpx.HTTPError as error:
                log.debug("request counts wait: %s", error)
                self._members.next()
                return taken
            self._drop(len(batch))
            taken = True
        return taken
