"""Copies of artifacts on other hosts: who keeps them, and what the leader asks of them (DECISIONS 21).

Owns the list of the other hosts, the key that opens `/internal/copies` to members alone, and the leader's short calls
to it: size, discard, list, fetch. The bytes themselves travel between the members' fronts (`omni.front.copying`). Every
host has one directory for all its members. With one host, or with a bucket, there are no copies to keep.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import random
import ssl
from dataclasses import dataclass, field
from functools import lru_cache

import httpx
from django.conf import settings

from omni.kernel import clock, keys
from omni.kernel.config import Config
from omni.kernel.config_checks import host_of
from omni.kernel.errors import OmniError
from releases.storage import store

PATH = "/internal/copies"
HERE = ""  # the name of this host among the others
_CONNECT_S = 1.0
_ANSWER_S = 5.0
_FETCH_S = 600.0
_log = logging.getLogger("omni.copies")


class CopiesUnavailable(OmniError):
    """Too few other hosts could take a copy; nothing was acknowledged."""

    status, code, title = 503, "copies_unavailable", "Too few hosts can keep a copy"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after_s=5, next="GET /cluster/status")


@dataclass(frozen=True, slots=True)
class Others:
    """The other hosts: the URLs of the members of each, and of this host's own.

    `wanted`: how many of the others must hold an upload before 202.
    """

    hosts: dict[str, tuple[str, ...]]
    here: tuple[str, ...]
    wanted: int
    key: str = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)

    def members(self, host: str) -> tuple[str, ...]:
        return self.here if host == HERE else self.hosts[host]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def others_of(config: Config) -> Others | None:
    """None where this host keeps all there is."""
    if not config.several_hosts or config.artifacts.s3_bucket:
        return None
    from consensus import identity

    here = host_of(config.me.address)
    hosts: dict[str, tuple[str, ...]] = {}
    for member in config.members:
        host = host_of(member.address)
        if host != here:
            hosts[host] = (*hosts.get(host, ()), config.reach(member))
    context = identity.client_context(identity.of(config))
    context.check_hostname = True
    wanted = min(config.artifacts.copies - 1, len(hosts))
    own = tuple(member.url for member in config.members_here)
    return Others(hosts, own, wanted, keys.derive(keys.cluster_secret(config), "copies").hex(), context)


class Peers:
    """The leader's side, for threads that may wait: each call ends within seconds, and a silent host is no error."""

    def __init__(self, others: Others) -> None:
        self.others = others
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        self._client = httpx.Client(verify=others.tls, headers=others.headers, timeout=timeout, trust_env=False)

    def size(self, sha256: str) -> int | None:
        """The size of the artifact on any other host; None when none that answers has it."""
        for host in random.sample(list(self.others.hosts), len(self.others.hosts)):
            answer = self._ask(host, "HEAD", f"/{sha256}")
            if answer is not None and answer.status_code == 200:
                return int(answer.headers["content-length"])
        return None

    def discard(self, host: str, sha256: str, *, unless_newer_than: dt.datetime) -> bool:
        """Ask a host to delete it, but not what it stored again since; False when the host does not answer.

        An age travels, not a time: clocks differ.
        """
        age_s = max(0.0, (clock.now() - unless_newer_than).total_seconds())
        answer = self._ask(host, "DELETE", f"/{sha256}?stored_before_s={age_s:.3f}")
        return answer is not None

    def held(self, host: str) -> dict[str, float] | None:
        """The digests that the host has, and for how many seconds; None when it does not answer."""
        answer = self._ask(host, "GET", "")
        if answer is None or answer.status_code != 200:
            return None
        lines = (line.split() for line in answer.text.splitlines())
        return {sha256: float(age) for sha256, age in lines}

    def fetch(self, host: str, sha256: str) -> bool:
        """Have the host (this one is `HERE`) get it from whoever has it."""
        answer = self._ask(host, "POST", f"/{sha256}?fetch=true", _FETCH_S)
        return answer is not None and answer.status_code == 200

    def _ask(self, host: str, method: str, path: str, answer_s: float = _ANSWER_S) -> httpx.Response | None:
        timeout = httpx.Timeout(answer_s, connect=_CONNECT_S)
        for member in self.others.members(host):
            with contextlib.suppress(httpx.HTTPError):
                return self._client.request(method, member + PATH + path, timeout=timeout)
        return None


@lru_cache(maxsize=1)
def peers() -> Peers | None:
    """Those of this process; None where there are no copies."""
    others = others_of(settings.CONFIG)
    return Peers(others) if others else None


@lru_cache(maxsize=4096)
def _size_elsewhere(sha256: str) -> int:
    found = peers()
    size = found.size(sha256) if found else None
    if size is None:
        raise LookupError(sha256)  # not remembered
    return size


def stored_size(sha256: str) -> int | None:
    """The artifact's size, wherever it lies; None when nobody who answers has it.

    A view asks before its transaction, so that the verb inside finds the answer here and waits for nobody.
    """
    size = store().size(sha256)
    if size is not None:
        return size
    with contextlib.suppress(LookupError):
        return _size_elsewhere(sha256)
    return None


def discard_everywhere(artifacts: list[tuple[str, dt.datetime]]) -> int:
    """Delete artifacts that nobody wants since, here and on every host that answers; how many went from here.

    A host that is away keeps its copies until `copy_keeper` finds them.
    """
    gone = sum(store().discard(sha256, unless_newer_than=at) for sha256, at in artifacts)
    found = peers()
    if found is None:
        return gone
    for host in found.others.hosts:
        for sha256, at in artifacts:
            if not found.discard(host, sha256, unless_newer_than=at):
                break
    return gone
