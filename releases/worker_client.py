"""A build worker's calls to the control plane: any member will do, and a member that is gone is passed over.

Owns retries and fail-over; decides nothing about builds. "No" and "don't know" are different: `Refused` and its kin
mean that the control plane answered, `Unreachable` that nobody did until the deadline. One client per thread.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from observing import tracing
from releases.contract import Claim, Outcome, Package, Renewed, Step, claim_from, renewed_from

CHUNK = 256 * 1024
_TRY_AGAIN = (429, 502, 503, 504)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0


class WorkerClientError(Exception):
    """Anything that kept a call from doing what it should."""


class Unreachable(WorkerClientError):
    """No member answered before the deadline; whether the last call had an effect is not known."""


class Refused(WorkerClientError):
    """The control plane said no. `code` is stable."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail


class NotClaimable(Refused):
    """Somebody else has the build, or it has ended."""


class LeaseLost(Refused):
    """This attempt no longer owns the build: stop and discard."""


class Damaged(WorkerClientError):
    """What arrived is not what was asked for."""


class ControlPlane:
    """`members` are base URLs, the preferred one first; the one that answered last is asked first next time."""

    def __init__(
        self,
        members: Sequence[str],
        token: str,
        timeout_s: float = 10.0,
        client: httpx.Client | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if not members:
            raise ValueError("no member of the control plane is known")
        self._members = [member.rstrip("/") for member in members]
        self._timeout_s = timeout_s
        # Nothing of the environment: a proxy on the way to a loopback address only loses the call.
        self._client = client or httpx.Client(
            timeout=timeout_s, trust_env=False, follow_redirects=False, verify=tls or True
        )
        self._client.headers["Authorization"] = f"Bearer {token}"
        self._client.event_hooks["request"].append(_name_span)

    def on_behalf_of(self, request_id: str) -> None:
        """What is asked from now on belongs to that request: an upload, whose build this is."""
        if request_id and request_id != "-":
            self._client.headers["Request-Id"] = request_id

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def claim(self, build_id: int, worker: str, within_s: float) -> Claim:
        """Raises NotClaimable. The key makes a repeated call, after a lost answer, get the first one's answer."""
        path, key = f"/internal/builds/{build_id}/claim", f"claim-{secrets.token_hex(16)}"
        answer = self._call("POST", path, within_s, json={"worker": worker}, headers={"Idempotency-Key": key})
        return claim_from(answer.json())

    def heartbeat(self, build_id: int, token: str, builder: str, steps: Sequence[Step], within_s: float) -> Renewed:
        """Raises LeaseLost."""
        body = {"token": token, "builder": builder, "steps": [asdict(step) for step in steps]}
        return renewed_from(self._call("POST", f"/internal/builds/{build_id}/heartbeat", within_s, json=body).json())

    def logs(self, build_id: int, token: str, first_seq: int, lines: Sequence[list[Any]], within_s: float) -> None:
        """Store consecutive lines; repeating a batch is harmless."""
        body = {"token": token, "first_seq": first_seq, "lines": list(lines)}
        self._call("POST", f"/internal/builds/{build_id}/logs", within_s, json=body)

    def finish(self, build_id: int, token: str, outcome: Outcome, within_s: float) -> None:
        """Say how it ended; repeating it is harmless. Raises LeaseLost."""
        self._call("POST", f"/internal/builds/{build_id}/finish", within_s, json={"token": token, **outcome.to_json()})

    def fetch_artifact(
        self, sha256: str, size: int, path: Path, within_s: float, stop: Callable[[], None] = lambda: None
    ) -> None:
        """Stream the upload into `path`; `stop` may raise to end it. Raises Damaged when it is something else."""

        def once(member: str) -> httpx.Response:
            with self._client.stream("GET", f"{member}/internal/artifacts/{sha256}") as answer:
                if answer.status_code != 200:
                    answer.read()
                    return answer
                _save(answer.iter_bytes(CHUNK), sha256, size, path, stop)
                return answer

        self._anywhere(once, within_s)

    def put_package(
        self, build_id: int, token: str, package: Package, path: Path, within_s: float,
        stop: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Stream a package up; the same bytes twice are harmless."""

        def once(member: str) -> httpx.Response:
            return self._client.put(
                f"{member}/internal/packages/{package.sha256}",
                params={"build": str(build_id)},
                headers={
                    "Content-Type": "application/x-tar",
                    "Content-Length": str(package.size),
                    "Omni-Build-Token": token,
                },
                content=_pieces(path, stop),
                timeout=httpx.Timeout(self._timeout_s, read=max(60.0, self._timeout_s)),
            )

        self._anywhere(once, within_s)

    def _call(
        self, method: str, path: str, within_s: float, *, json: dict[str, Any], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return self._anywhere(
            lambda member: self._client.request(method, member + path, json=json, headers=headers), within_s
        )

    def _anywhere(self, once: Callable[[str], httpx.Response], within_s: float) -> httpx.Response:
        """Try member after member until one answers; a round without an answer is followed by a growing pause."""
        end = time.monotonic() + within_s
        pause, reason = _FIRST_PAUSE_S, "no member was asked"
        while True:
            for member in list(self._members):
                try:
                    answer = once(member)
                except (httpx.TransportError, httpx.StreamError) as error:
                    reason = f"{member}: {type(error).__name__} {error}"
                else:
                    if answer.status_code not in _TRY_AGAIN:
                        self._prefer(member)
                        return _checked(answer)
                    reason = f"{member}: {answer.status_code} {_problem(answer)[0]}"
                if time.monotonic() >= end:
                    raise Unreachable(reason)
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, end - time.monotonic())))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _prefer(self, member: str) -> None:
        if self._members[0] != member:
            self._members.remove(member)
            self._members.insert(0, member)


def _name_span(request: httpx.Request) -> None:
    """Where traces are on: what is asked for within a build hangs from the build."""
    if span := tracing.here():
        request.headers[tracing.HEADER] = span


def tls_context(folder: str) -> ssl.SSLContext | None:
    """What proves the worker to members of other hosts, from the folder that the launcher wrote; none for one host."""
    if not folder:
        return None
    files = Path(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # only the cluster's own authority counts
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=str(files / "authority.pem"))
    context.load_cert_chain(str(files / "member.pem"), str(files / "member.key"))
    return context


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    code, detail = _problem(answer)
    kind = {"not_claimable": NotClaimable, "lease_lost": LeaseLost}.get(code, Refused)
    raise kind(answer.status_code, code, detail)


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        body = answer.json()
        return str(body.get("code", "unknown")), str(body.get("detail", ""))[:500]
    except (ValueError, AttributeError, httpx.StreamError):
        return "unknown", ""


def _save(pieces: Iterator[bytes], sha256: str, size: int, path: Path, stop: Callable[[], None]) -> None:
    digest = hashlib.sha256()
    received = 0
    with path.open("wb") as file:
        for piece in pieces:
            stop()
            received += len(piece)
            if received > size:
                raise Damaged(f"the artifact is longer than its {size} bytes")
            digest.update(piece)
            file.write(piece)
    if received < size:
        raise httpx.ReadError(f"the artifact ended after {received} of {size} bytes")
    if digest.hexdigest() != sha256:
        raise Damaged("the artifact is not what its digest says")


def _pieces(path: Path, stop: Callable[[], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            stop()
            yield piece
