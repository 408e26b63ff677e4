"""OpenTelemetry traces, where they are wanted: one trace for one request, through every process that works for it.

Owns the trace's identity. It follows from the request id, which all processes have anyway: in headers, in rows, in what
agents and build workers are told. So nothing else is carried along, and a build that begins an hour later is in the
trace of its upload. Calls between processes name the span that they come from (`traceparent`); what is done later, by
itself, hangs from the request's first span. OpenTelemetry is imported only where `OMNI_TRACING_ENDPOINT` is
set: off, a span costs one comparison.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from observing import journal

ENDPOINT = "OMNI_TRACING_ENDPOINT"  # base URL of an OTLP/HTTP collector
HEADER = "traceparent"  # W3C Trace Context
Kind = Literal["internal", "server", "client", "producer", "consumer"]
_EXPORT_EVERY_MS, _EXPORT_TIMEOUT_S = 1000, 5
_GIVEN = re.compile(r"tr-([0-9a-f]{32})-([0-9a-f]{16})")
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
_log = logging.getLogger("omni.tracing")
_quiet: ContextVar[bool] = ContextVar("omni_untraced", default=False)
_forced: ContextVar[tuple[int, int] | None] = ContextVar("omni_forced_span", default=None)


class _State:
    tracer: Any = None
    provider: Any = None


@dataclass(frozen=True, slots=True)
class Ids:
    """Of a request: its trace, the trace's first span, and the span of a caller with a trace of its own (else 0)."""

    trace: int
    first: int
    caller: int = 0


def ids(request: str) -> Ids:
    """Pure: every process finds the same."""
    digest = hashlib.sha256(request.encode()).digest()
    first = int.from_bytes(digest[16:24], "big") or 1
    given = _GIVEN.fullmatch(request)
    if given is not None:
        return Ids(int(given[1], 16), first, int(given[2], 16))
    return Ids(int.from_bytes(digest[:16], "big") or 1, first)


def request_id_of(traceparent: str) -> str:
    """The request id of a caller that has a trace of its own and gave no id; empty for anything else."""
    found = _PARENT.fullmatch(traceparent) if traceparent else None
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return ""
    return f"tr-{found[1]}-{found[2]}"


def on() -> bool:
    return _State.tracer is not None


def configure(process: str, node: str = "") -> bool:
    """Once, at the start of a process that does not fork any more; whether traces are exported."""
    endpoint = os.environ.get(ENDPOINT, "")
    if not endpoint:
        return False
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as missing:
        _log.warning("%s is set, but traces need requirements-tracing.txt: %s", ENDPOINT, missing)
        return False
    session = requests.Session()
    session.trust_env = False  # straight to the collector, as all of our own calls
    address = endpoint.rstrip("/") + "/v1/traces"
    exporter = OTLPSpanExporter(address, timeout=_EXPORT_TIMEOUT_S, session=session)
    export_by(BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS), process, node)
    _log.info("traces go to %s", address)
    return True


def export_by(processor: Any, process: str, node: str = "") -> None:
    """Traces go to this span processor (of the OpenTelemetry SDK) from now on."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Chosen(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            forced = _forced.get()
            return forced[0] if forced is not None else int(super().generate_trace_id())

        def generate_span_id(self) -> int:
            forced = _forced.get()
            return forced[1] if forced is not None else int(super().generate_span_id())

    resource = Resource.create({"service.name": f"omni-{process}", "service.instance.id": node})
    _State.provider = TracerProvider(resource=resource, id_generator=Chosen())
    _State.provider.add_span_processor(processor)
    _State.tracer = _State.provider.get_tracer("omni")


def close() -> None:
    """Send what is left, and trace no more."""
    provider, _State.tracer, _State.provider = _State.provider, None, None
    if provider is not None:
        provider.shutdown()


def quiet() -> AbstractContextManager[Any]:
    """Nothing inside is traced, although it is done for a request: what reports all the time."""
    return _NOTHING if _State.tracer is None else _silence()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def here() -> str:
    """The current span as a `traceparent`; empty without one."""
    if _State.tracer is None:
        return ""
    from opentelemetry import trace

    current = trace.get_current_span().get_span_context()
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-01" if current.is_valid else ""


def span(
    name: str, *, kind: Kind = "internal", parent: str = "", first: bool = False, **attributes: str | int
) -> AbstractContextManager[Any]:
    """A span of the current request's trace; nothing where no request is worked for, or traces are off.

    `first`: the one that all others of the trace hang from. `parent`: a `traceparent` that came with a call; one of
    another trace is ignored.
    """
    if _State.tracer is None or not journal.current() or _quiet.get():
        return _NOTHING
    return _span(name, kind, parent, first, {"omni.request_id": journal.current(), **attributes})


@contextlib.contextmanager
def _span(name: str, kind: Kind, parent: str, first: bool, attributes: dict[str, Any]) -> Iterator[Any]:
    from opentelemetry import trace
    from opentelemetry.context import Context

    known = ids(journal.current())
    current = trace.get_current_span().get_span_context()
    named = _PARENT.fullmatch(parent) if parent else None
    context: Context | None = None  # below the current span
    if first:
        context = _below(known.trace, known.caller) if known.caller else Context()
    elif named is not None and int(named[1], 16) == known.trace:
        context = _below(known.trace, int(named[2], 16))
    elif current.trace_id != known.trace:
        context = _below(known.trace, known.first)
    token = _forced.set((known.trace, known.first)) if first else None
    try:
        made = _State.tracer.start_span(
            name, context=context, kind=getattr(trace.SpanKind, kind.upper()), attributes=attributes
        )
    finally:
        if token is not None:
            _forced.reset(token)
    with trace.use_span(made, end_on_exit=True):
        yield made


def _below(trace_id: int, span_id: int) -> Any:
    """A context whose current span is one of another process."""
    from opentelemetry import trace
    from opentelemetry.context import Context

    far = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
    return trace.set_span_in_context(trace.NonRecordingSpan(far), Context())
