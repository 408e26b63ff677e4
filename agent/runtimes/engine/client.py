"""Bounded calls to a Docker Engine (or to Podman's socket), by the Docker SDK's low-level client.

Owns the threads that the blocking SDK runs in, time-outs, and the translation of its many errors into two: the engine
is `Away` (nobody knows what it would have said), or it `Declined` and said why. Knows nothing of instances.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from sandbox.engines import SOCKETS, find

if TYPE_CHECKING:
    from docker import APIClient

T = TypeVar("T")

CALL_S = 20.0
LONG_CALL_S = 900.0  # loading an image
Lane = Literal["ask", "change", "command"]
_THREADS = 8  # in each lane
OLDEST_API = (1, 40)


class EngineError(Exception):
    """Base of what a call can end with; the text is for people."""


class Away(EngineError):
    """No answer, or half of one: whether the call was carried out is not known."""


class Declined(EngineError):
    """The engine said no. `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Engine:
    """One engine. `wanted` is a URL (unix:// or tcp://) or "auto". Usable before it runs and while it is away.

    Each lane has threads of its own, so that what takes long holds up only its like: while many containers are made,
    started or cleared away ("change"), those that run already are asked after and ended ("ask"), and commands beside
    them run ("command"), as if nothing else were going on.
    """

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._pools = {lane: ThreadPoolExecutor(_THREADS, f"engine-{lane}") for lane in get_args(Lane)}
        self._making = threading.Lock()
        self._clients: dict[tuple[str, float], APIClient] = {}

    @property
    def url(self) -> str:
        return find(self._wanted)

    async def call(self, function: Callable[[APIClient], T], timeout_s: float = CALL_S, *, lane: Lane = "ask") -> T:
        """What `function` answers. Raises Away or Declined."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[lane], functools.partial(self.call_here, function, timeout_s))

    def call_here(self, function: Callable[[APIClient], T], timeout_s: float = CALL_S) -> T:
        """The same in this thread; `timeout_s` is the longest silence."""
        if not self.url:  # the SDK is large: a node without an engine never loads it
            raise Away(f"no engine: none of {', '.join(SOCKETS)} is there")
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        try:
            return function(self._client(timeout_s))
        except APIError as error:
            status = error.response.status_code if error.response is not None else 500
            raise Declined(status, str(error.explanation or error).strip()[:1000]) from error
        except (DockerException, RequestException, HTTPError, OSError) as error:
            self._forget()
            raise Away(self._why(error)) from error

    def _client(self, timeout_s: float) -> APIClient:
        from docker import APIClient

        url = self.url
        with self._making:
            client = self._clients.get((url, timeout_s))
            if client is None:
                # Asks the engine for its version: it must answer now.
                client = APIClient(base_url=url, version="auto", timeout=timeout_s, max_pool_size=_THREADS * 3)
                self._clients[url, timeout_s] = client
            return client

    def _forget(self) -> None:
        """The next engine behind this socket may be another version."""
        with self._making:
            self._clients.clear()

    def _why(self, error: Exception) -> str:
        return f"no answer from the engine at {self.url or self._wanted}: {_innermost(error)}"

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)


def _innermost(error: BaseException) -> str:
    """The system's own words at the bottom of a pile of wrappers."""
    seen: set[int] = set()
    at: Any = error
    while True:
        seen.add(id(at))
        below = at.__cause__ or at.__context__ or getattr(at, "reason", None)
        if not isinstance(below, BaseException) or id(below) in seen:
            break
        at = below
    if isinstance(at, OSError) and at.strerror:
        return str(at.strerror).lower()
    return (str(at) or type(at).__name__)[:300]
