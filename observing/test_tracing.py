"""One trace through all processes that work for one request; nothing without the extra."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from observing import journal, tracing

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans() -> Iterator[Any]:
    pytest.importorskip("opentelemetry.sdk", reason="the tracing extra is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing.export_by(SimpleSpanProcessor(exporter), "test")
    yield exporter
    tracing.close()


def test_every_process_finds_the_same_trace_for_a_request() -> None:
    assert tracing.ids("req_1") == tracing.ids("req_1") != tracing.ids("req_2")


def test_a_caller_with_a_trace_of_its_own_stays_in_it() -> None:
    request = tracing.request_id_of(f"00-{TRACE}-{CALLER}-01")
    assert len(request) <= 64
    known = tracing.ids(request)
    assert (known.trace, known.caller) == (int(TRACE, 16), int(CALLER, 16))
    for garbage in ("", "garbage", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-{'0' * 16}-01"):
        assert tracing.request_id_of(garbage) == ""


def test_off_nothing_is_imported_and_a_span_is_nothing() -> None:
    code = (
        "import sys; from observing import journal, tracing\n"
        "assert tracing.configure('web') is False and tracing.here() == ''\n"
        "with journal.on_behalf_of('req_1'), tracing.span('x') as made: assert made is None\n"
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'requests', 'google'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, env={"PATH": ""})


def test_what_is_done_later_hangs_from_the_first_span(spans: Any) -> None:
    with journal.on_behalf_of("req_1"):
        with tracing.span("POST", first=True), tracing.span("forward"):
            there = tracing.here()
        with tracing.span("POST there", parent=there), tracing.span("commit"):
            pass
        with tracing.span("start instance"):
            pass
    with tracing.span("nobody's"):
        pass
    found = {one.name: one for one in spans.get_finished_spans()}
    assert set(found) == {"POST", "forward", "POST there", "commit", "start instance"}
    assert {one.context.trace_id for one in found.values()} == {tracing.ids("req_1").trace}
    parents = {name: one.parent and one.parent.span_id for name, one in found.items()}
    assert parents == {
        "POST": None,
        "forward": found["POST"].context.span_id,
        "POST there": found["forward"].context.span_id,
        "commit": found["POST there"].context.span_id,
        "start instance": found["POST"].context.span_id,
    }


def test_what_reports_all_the_time_is_not_traced_although_it_names_a_request(spans: Any) -> None:
    with journal.on_behalf_of("req_3"), tracing.quiet(), tracing.span("forward"), tracing.span("commit"):
        assert tracing.here() == ""
    assert spans.get_finished_spans() == ()


def test_a_span_of_another_trace_is_nobodys_parent(spans: Any) -> None:
    with journal.on_behalf_of("req_2"), tracing.span("x", parent=f"00-{TRACE}-{CALLER}-01"):
        pass
    (made,) = spans.get_finished_spans()
    assert made.context.trace_id == tracing.ids("req_2").trace
    assert made.parent.span_id == tracing.ids("req_2").first


def test_the_first_span_of_a_traced_caller_hangs_from_the_callers(spans: Any) -> None:
    with journal.on_behalf_of(tracing.request_id_of(f"00-{TRACE}-{CALLER}-01")), tracing.span("POST", first=True):
        pass
    (made,) = spans.get_finished_spans()
    assert (made.context.trace_id, made.parent.span_id) == (int(TRACE, 16), int(CALLER, 16))
