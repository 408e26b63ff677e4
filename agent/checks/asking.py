"""Asking a service whether it serves: one question, one answer within the check's time-out.

Owns the questions (http, tcp, tls, exec, disk) and where they may go: a name is resolved once, and the connection goes
to the very address that the policy allowed. Follows no redirect. What a row of answers means is `streaks`' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from agent.checks.messages import Check, Outcome
from agent.wire import Request, WireError, fetch
from sandbox.addresses import AddressPolicy, Refused

BODY_LIMIT = 256 * 1024
OUTPUT_LIMIT = 4096
NOBODY = 65534
_NAME_KEPT_S = 5.0  # so that a thousand checks of one host are one question to the resolver
_DAY_S = 86_400.0
_DETAIL = 300
_ANYWHERE = AddressPolicy.of(allow=["0.0.0.0/0", "::/0"])


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: Outcome
    detail: str


class Asker:
    """Asks under one policy. Its resolver threads are its own: a resolver that hangs holds up names only."""

    def __init__(self, policy: AddressPolicy | None = None) -> None:
        self.policy = policy or AddressPolicy()
        self._names: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._resolvers = ThreadPoolExecutor(8, thread_name_prefix="resolve")

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def ask(self, check: Check) -> Answer:
        """Never raises for what the service does."""
        try:
            async with asyncio.timeout(check.timeout_s):
                return await self._ask(check)
        except TimeoutError:
            return Answer("failing", f"no answer within {check.timeout_s:g} s")
        except OSError as error:  # before ValueError: a certificate that is not valid is both
            return Answer("failing", _reason(error)[:_DETAIL])
        except (Refused, ValueError) as error:
            return Answer("failing", str(error)[:_DETAIL])

    async def _ask(self, check: Check) -> Answer:
        if check.type == "tcp":
            return await self._tcp(check)
        if check.type == "http":
            return await self._http(check)
        if check.type == "tls":
            return await self._tls(check)
        return await _exec(check) if check.type == "exec" else _disk(check)

    async def _address(self, check: Check, host: str, port: int) -> str:
        """The one address that this check connects to. Raises Refused, OSError."""
        policy = _ANYWHERE if check.trusted else self.policy
        return policy.first_allowed(host, await self._resolve(host, port))

    async def _resolve(self, host: str, port: int) -> list[str]:
        if _literal(host):
            return [host]
        known = self._names.get((host, port))
        if known is not None and known[0] > time.monotonic():
            return known[1]
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(
            self._resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        if len(self._names) > 10_000:
            self._names.clear()
        self._names[host, port] = (time.monotonic() + _NAME_KEPT_S, found)
        return found

    async def _tcp(self, check: Check) -> Answer:
        address = await self._address(check, check.host, check.port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, (address, check.port))
        return Answer("passing", f"port {check.port} accepts connections")

    async def _http(self, check: Check) -> Answer:
        parts = urlsplit(check.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(check, host, port)
        request = Request(check.method, check.url, {"User-Agent": "omni-check"})
        try:
            answer = await fetch(
                request, check.timeout_s, BODY_LIMIT, connect_s=check.timeout_s, tls=_context(check.verify),
                connect_to=address, head_only=not check.contains,
            )  # fmt: skip
        except WireError as error:
            cause = error.__cause__
            if isinstance(cause, TimeoutError):
                raise TimeoutError from error
            said = _reason(cause) if isinstance(cause, OSError) else str(cause or error)
            return Answer("failing", said[:_DETAIL])
        said = f"answered {answer.status}"
        if not check.status_min <= answer.status <= check.status_max:
            wanted = f"{check.status_min}-{check.status_max}"
            return Answer("failing", f"{said}, not {wanted}")
        if check.contains and check.contains.encode() not in answer.body:
            return Answer("failing", f"{said} without the wanted text")
        return Answer("passing", said)

    async def _tls(self, check: Check) -> Answer:
        address = await self._address(check, check.host, check.port)
        name = check.server_name or check.host
        _, writer = await asyncio.open_connection(address, check.port, ssl=_context(check.verify), server_hostname=name)
        try:
            left = _days_left(writer.get_extra_info("ssl_object"), time.time())
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()
        said = f"the certificate is valid for {left:.0f} more days" if left >= 0 else "the certificate has expired"
        if left <= check.fail_days:
            return Answer("failing", said)
        return Answer("warning" if left <= check.warn_days else "passing", said)


async def _exec(check: Check) -> Answer:
    """As nobody, in a session of its own, without our environment; all of it is killed at the end."""
    as_root = os.geteuid() == 0
    process = await asyncio.create_subprocess_exec(
        *check.command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        start_new_session=True,
        user=NOBODY if as_root else None,
        group=NOBODY if as_root else None,
        extra_groups=[] if as_root else None,
    )
    try:
        said = await _last_line(process)
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            await asyncio.shield(process.wait())
    text = f"exited with code {code}" + (f": {said}" if said else "")
    return Answer("passing" if code == 0 else "failing", text[:_DETAIL])


async def _last_line(process: asyncio.subprocess.Process) -> str:
    """Of the first few KiB; the rest is read and thrown away, so that the command does not wait for us."""
    assert process.stdout is not None  # noqa: S101
    kept = b""
    while block := await process.stdout.read(65536):
        kept = (kept + block)[:OUTPUT_LIMIT]
    lines = kept.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def _disk(check: Check) -> Answer:
    usage = shutil.disk_usage(check.path)
    free = 100.0 * usage.free / usage.total if usage.total else 0.0
    said = f"{free:.0f} % free ({usage.free // (1 << 20)} MiB)"
    if free <= check.fail_percent:
        return Answer("failing", said)
    return Answer("warning" if free <= check.warn_percent else "passing", said)


def _days_left(secured: ssl.SSLObject, now: float) -> float:
    told = secured.getpeercert()
    if told:
        ends = float(ssl.cert_time_to_seconds(str(told["notAfter"])))
    else:  # unverified: Python tells the certificate in binary only
        from cryptography import x509  # heavy, and seldom wanted

        raw = secured.getpeercert(binary_form=True)
        if raw is None:
            raise ValueError("the server showed no certificate")
        ends = x509.load_der_x509_certificate(raw).not_valid_after_utc.timestamp()
    return (ends - now) / _DAY_S


@lru_cache(maxsize=2)
def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return f"the name has no address: {error.strerror}"
    said = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return (said or type(error).__name__).lower()
