"""The HTTP side: one call after another to any member of the platform.

Owns fail-over between members, retries, idempotency keys, reading problems, waiting reads and event streams. Must not
print.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from cli.errors import CommandError, ProblemError
from cli.settings import Settings

if TYPE_CHECKING:
    import http.client

CONNECT_S = 3.0
READ_S = 60.0
RETRY_FOR_S = 45.0  # an election and a full lease of a new leader take seconds
RETRIED = (429, 502, 503, 504)
WRITES = ("POST", "PATCH", "DELETE", "PUT")
WAIT_S = 20
IDLE_S = 40.0  # a stream says "still here" every 15 s
USER_AGENT = "omni-cli/1"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: Any

    @property
    def index(self) -> str:
        return self.headers.get("omni-index", "")


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    id: str
    kind: str
    data: str


class Api:
    """Calls under the settings' token. `retry_for_s` bounds how long a write or read is tried again."""

    def __init__(self, settings: Settings, retry_for_s: float = RETRY_FOR_S) -> None:
        self._settings = settings
        self._retry_for_s = retry_for_s
        self._current = 0

    @property
    def url(self) -> str:
        return self._settings.urls[self._current]

    def get(self, path: str, **query: object) -> Answer:
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, object] | None = None,
        upload: Path | None = None,
        headers: dict[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Answer:
        """One call, tried again on 429, 502, 503, 504 and lost connections; a write under one Idempotency-Key."""
        fields = {"Accept": "application/json, application/problem+json", **self._identity(), **(headers or {})}
        if method in WRITES:
            fields["Idempotency-Key"] = str(uuid.uuid4())
        data: bytes | None = None
        if body is not None:
            data = json.dumps(body).encode()
            fields["Content-Type"] = "application/json"
        target = path + _query(query)
        deadline = time.monotonic() + self._retry_for_s
        attempt = 0
        while True:
            answer, trouble = self._try_members(method, target, data, fields, upload, progress)
            if answer is not None and answer.status < 400:
                return answer
            if answer is not None and answer.status not in RETRIED:
                raise _problem(answer)
            pause = _pause(answer, attempt)
            if time.monotonic() + pause > deadline:
                raise _problem(answer) if answer is not None else self._unreachable(trouble)
            if answer is None and self._settings.url_source == "default" and attempt >= 1:
                raise self._unreachable(trouble)  # nobody said where the platform is: most likely it is not started
            time.sleep(pause)
            attempt += 1

    def _identity(self) -> dict[str, str]:
        fields = {"User-Agent": USER_AGENT}
        if self._settings.token:
            fields["Authorization"] = f"Bearer {self._settings.token}"
        return fields

    def _unreachable(self, trouble: str) -> CommandError:
        return CommandError(
            f"no answer from {', '.join(self._settings.urls)}: {trouble}",
            next_step="start the platform with ./start.sh, or say where it is: omni login URL",
        )

    def _try_members(
        self,
        method: str,
        target: str,
        data: bytes | None,
        fields: dict[str, str],
        upload: Path | None,
        progress: Callable[[int], None] | None,
    ) -> tuple[Answer | None, str]:
        """Ask the current member, then the others; the first answer counts, whatever it says."""
        import http.client

        trouble = ""
        for _ in self._settings.urls:
            connection = None
            try:
                connection = self._open()
                response = _send(connection, method, target, data, fields, upload, progress)
                raw = response.read()
                return Answer(response.status, _headers(response), _parse(raw)), ""
            except (OSError, http.client.HTTPException) as error:
                trouble = str(error) or type(error).__name__
                self._current = (self._current + 1) % len(self._settings.urls)
            finally:
                if connection is not None:
                    connection.close()
        return None, trouble

    def _open(self, read_s: float = READ_S) -> http.client.HTTPConnection:
        import http.client

        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_S)
        connection.connect()
        connection.sock.settimeout(read_s)
        return connection

    def watch(self, path: str, done: Callable[[Any], bool], timeout_s: float, **query: object) -> Answer:
        """Read `path` again whenever it has changed, until `done` says so; raises when that takes too long."""
        deadline = time.monotonic() + timeout_s
        answer = self.get(path, **query)
        while not done(answer.body):
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandError(f"not finished after {timeout_s:.0f} s; it goes on without us")
            started = time.monotonic()
            wait = {"index": answer.index, "wait": min(WAIT_S, max(1, int(left)))} if answer.index else {}
            answer = self.get(path, **query, **wait)
            if time.monotonic() - started < 0.2 and not done(answer.body):
                time.sleep(0.3)  # a server that does not wait
        return answer

    def pages(self, path: str, limit: int, **query: object) -> Iterator[Any]:
        """The items of a list, page after page, at most `limit`."""
        answer = self.get(path, limit=min(limit, 500), **query)
        while True:
            for item in answer.body["items"]:
                if limit <= 0:
                    return
                limit -= 1
                yield item
            following = answer.body.get("next")
            if not following or limit <= 0:
                return
            parts = urlsplit(following)
            answer = self.get(f"{parts.path}?{parts.query}")

    def events(
        self, path: str, last_id: str = "", query: dict[str, object] | None = None, idle_s: float = IDLE_S
    ) -> Iterator[Event] | None:
        """The events of a stream until it ends or is silent for `idle_s`; None when the path has no stream."""
        import http.client

        fields = {"Accept": "text/event-stream", **self._identity()}
        if last_id:
            fields["Last-Event-ID"] = last_id
        try:
            connection = self._open(idle_s)
            response = _send(connection, "GET", path + _query(query), None, fields, None, None)
        except (OSError, http.client.HTTPException):
            self._current = (self._current + 1) % len(self._settings.urls)
            return iter(())  # an empty stream: the caller asks again, another member then
        kind = response.headers.get("Content-Type", "")
        if response.status >= 400 and response.status not in (406, *RETRIED):
            raise _problem(Answer(response.status, _headers(response), _parse(response.read())))
        if response.status != 200 or not kind.startswith("text/event-stream"):
            connection.close()
            return None
        return _read_events(connection, response)


def _send(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    data: bytes | None,
    fields: dict[str, str],
    upload: Path | None,
    progress: Callable[[int], None] | None,
) -> http.client.HTTPResponse:
    if upload is None:
        connection.request(method, target, body=data, headers=fields)
    else:
        with upload.open("rb") as file:
            size = {"Content-Length": str(upload.stat().st_size)}
            try:
                connection.request(method, target, body=_chunks(file, progress), headers={**fields, **size})
            except (BrokenPipeError, ConnectionResetError):
                # The server may have refused early and closed; its answer, if it gave one, says why.
                return connection.getresponse()
    return connection.getresponse()


def _chunks(file: Any, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    sent = 0
    while chunk := file.read(1 << 17):
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent)


def _read_events(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[Event]:
    import http.client

    identity, kind = "", "message"
    data: list[str] = []
    try:
        while raw := response.readline():
            line = raw.decode(errors="replace").rstrip("\r\n")
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line and data:
                yield Event(identity, kind, "\n".join(data))
                kind, data = "message", []
            elif name == "id":
                identity = value
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
    except (OSError, http.client.HTTPException):
        return  # cut or silent: the caller decides whether to ask again
    finally:
        connection.close()


def app_path(app: str, *rest: object) -> str:
    return "/".join(["/app", quote(app, safe=""), *(quote(str(part), safe="") for part in rest)])


def _query(query: dict[str, object] | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")


def _problem(answer: Answer) -> ProblemError:
    body = answer.body if isinstance(answer.body, dict) else {"detail": str(answer.body or "")[:500]}
    return ProblemError(answer.status, body)


def _pause(answer: Answer | None, attempt: int) -> float:
    """What the server asks for, else a growing one with jitter."""
    if answer is not None:
        try:
            return max(0.0, float(answer.headers.get("retry-after", "")))
        except ValueError:
            pass
    return float(min(0.25 * 2**attempt, 5.0) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
