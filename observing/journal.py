"""How our own processes log: text, or one JSON object a line, each with the request that it follows from.

Owns the form of a line and the context variable of the request id; the same for web, daemon, Raft, agent, build worker,
ingress and supervisor. Must not know where a line goes (standard error, which the supervisor writes to a file).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType

NONE = "-"  # work that no request asked for
FORMAT = "OMNI_LOG_FORMAT"  # text or json; omni.launch sets it for each process
PROCESS = "OMNI_PROCESS"  # "node-8000/web"; omni.launch sets it, too
request_id: ContextVar[str] = ContextVar("omni_request_id", default=NONE)


def current() -> str:
    """The id of the request that is being worked for; empty without one."""
    found = request_id.get()
    return "" if found == NONE else found


@contextlib.contextmanager
def on_behalf_of(request: str) -> Iterator[None]:
    """What is done inside follows from that request: its id goes into events and logs. Empty: as before."""
    token = request_id.set(request or request_id.get())
    try:
        yield
    finally:
        request_id.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line: no message can forge a line. Times are UTC."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = process or os.environ.get(PROCESS, "")

    def format(self, record: logging.LogRecord) -> str:
        line = shape(record.created, record.levelname, record.name, self._process, record.getMessage())
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """For people: the request only where there is one."""

    def __init__(self, process: str = "") -> None:
        super().__init__(f"%(asctime)s {process} %(levelname)s %(name)s: %(message)s".replace("  ", " "))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        text, request = super().formatMessage(record), current()
        return f"{text} [{request}]" if request else text


def shape(at: float, level: str, logger: str, process: str, message: str) -> dict[str, str]:
    """The keys of every line, in their order. `at` in seconds since 1970."""
    return {
        "at": dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level,
        "logger": logger,
        "process": process,
        "request_id": request_id.get(),
        "message": message,
    }


def formatter(process: str = "", form: str = "") -> logging.Formatter:
    """The wished-for form, by default what the environment says."""
    chosen = form or os.environ.get(FORMAT, "text")
    return JsonLines(process) if chosen == "json" else TextLines(process)


def configure(process: str = "", level: int | str = logging.INFO, form: str = "") -> None:
    """Once, at the start of a process without Django: all of its lines go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(process, form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    own_uncaught()


def own_uncaught() -> None:
    """What ends a process is a line of its log like any other, not a traceback over twenty lines."""
    if os.environ.get(FORMAT) == "json":
        sys.excepthook = _uncaught
        logging.captureWarnings(True)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("omni.process").critical("ends: %r", error, exc_info=(kind, error, trace))
