"""What the platform says about itself: one request id through all logs, one trace through the work for a request."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]
ASKED = "upload-of-the-story"


@dataclass(frozen=True, slots=True)
class Span:
    service: str
    node: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]


class Collector:
    """An OTLP/HTTP receiver: decodes what arrives, keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                collector.take(self.path, plain)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    said = {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}
                    self.spans.append(
                        Span(about["service.name"], about["service.instance.id"], span.name, span.trace_id.hex(),
                             span.span_id.hex(), span.parent_span_id.hex(), said)
                    )  # fmt: skip


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.proto", reason="the tracing extra is not installed")
    receiving = Collector()
    thread = threading.Thread(target=receiving.server.serve_forever)
    thread.start()
    yield receiving
    receiving.server.shutdown()
    thread.join(10)
    receiving.server.server_close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Platform]:
    """One of its own, whose processes write JSON and are traced."""
    folder = tmp_path_factory.mktemp("told")
    running = Platform.prepared(folder, members=2, log_format="json", tracing_endpoint=collector.url)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def app(platform: Platform) -> dict[str, Any]:
    """Uploaded to a follower under a request id of the caller's own; built, deployed, running."""
    api = platform.api(platform.followers()[0])
    made = api.create("told", instances=2)
    data = archive(EXAMPLES / "hello")
    answer = api.upload("told", "1", data, **{"Request-Id": ASKED})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Request-Id"] == ASKED
    api.healthy("told", 2, "1")
    return made


def lines(platform: Platform) -> list[dict[str, Any]]:
    """All log lines of our own processes; the file that each stands in as `file`."""
    found = []
    for path in [*platform.state.glob("node-*/log"), platform.state / "worker" / "log", platform.state / "ingress/log"]:
        for line in path.read_text().splitlines():
            try:
                found.append({**json.loads(line), "file": path.parent.name})
            except ValueError:
                raise AssertionError(f"no JSON in {path}: {line}") from None
    return found


def test_one_request_id_runs_through_all_processes(platform: Platform, app: dict[str, Any]) -> None:
    def processes() -> set[str]:
        return {line["process"].rpartition("/")[2] for line in lines(platform) if line["request_id"] == ASKED}

    wait_for(lambda: {"web", "worker", "daemon", "agent"} <= processes(), "the id in the logs of four processes", 20)
    fronts = {
        line["file"] for line in lines(platform) if line["request_id"] == ASKED and line["logger"] == "omni.front"
    }
    assert len(fronts) == 2, "the member that was asked, and the leader"


def test_events_name_the_request_that_they_follow_from(platform: Platform, app: dict[str, Any]) -> None:
    events = platform.api().ok("GET", "/events?app=told&limit=500")["items"]
    under = {event["kind"] for event in events if event["request_id"] == ASKED}
    assert {"build.queued", "build.succeeded", "deployment.created", "instance.placed"} <= under, sorted(under)


def test_every_line_says_when_who_and_how_bad(platform: Platform, app: dict[str, Any]) -> None:
    keys = {"at", "level", "logger", "process", "request_id", "message"}
    for line in lines(platform):
        assert keys <= line.keys(), line
        assert line["process"], line


def test_one_trace_runs_from_the_request_to_the_instance(
    platform: Platform, app: dict[str, Any], collector: Collector
) -> None:
    def traced() -> list[Span]:
        return [span for span in collector.spans if span.attributes.get("omni.request_id") == ASKED]

    def starts() -> bool:
        return len([span for span in traced() if span.name == "start instance"]) == 2

    wait_for(starts, "the starts of two instances in the trace", 20)
    spans = traced()
    assert len({span.trace for span in spans}) == 1
    (first,) = [span for span in spans if not span.parent]
    assert first.name == "POST /app/{app}/release/{version}/upload", first
    path = _way_down(spans, first, "forward", "POST /app/{app}/release/{version}/upload", "web", "commit")
    assert path[1].node != first.node, "the leader's part is another member's"
    for forward in (span for span in spans if span.name == "forward"):
        assert forward.parent != first.id or forward is path[0], "a heartbeat of the worker is no part of the request"
    (build,) = [span for span in spans if span.name == "build"]
    assert (build.service, build.parent) == ("omni-worker", first.id)
    steps = {span.name for span in spans if span.parent == build.id}
    assert {"build: fetch", "build: build", "build: package"} <= steps, steps
    finish = [span for span in spans if span.parent == build.id and span.service == "omni-web"]
    assert any(span.attributes["url.path"].endswith("/finish") for span in finish), finish
    for start in (span for span in spans if span.name == "start instance"):
        assert (start.service, start.parent) == ("omni-agent", first.id)
        assert {span.name for span in spans if span.parent == start.id} == {"package", "runtime"}
    placed = [span for span in spans if span.service == "omni-daemon" and span.name == "commit"]
    assert {span.parent for span in placed} == {first.id}


def _way_down(spans: list[Span], first: Span, *names: str) -> list[Span]:
    """The spans of these names, each a child of the one before."""
    found, above = [], first
    for name in names:
        below = [span for span in spans if span.parent == above.id and span.name == name]
        seen = [(span.service, span.node[-5:], span.name, span.id, span.parent) for span in spans]
        assert below, f"no {name} below {above}: {seen}"
        above = below[-1]
        found.append(above)
    return found


def test_a_caller_with_a_trace_of_its_own_finds_ours_in_it(platform: Platform, collector: Collector) -> None:
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = platform.api()("GET", "/app", headers={"traceparent": f"00-{trace}-{caller}-01"})
    assert answer.headers["Request-Id"] == f"tr-{trace}-{caller}"
    mine = wait_for(lambda: [span for span in collector.spans if span.trace == trace and span.parent == caller], "it")
    assert [span.name for span in mine] == ["GET /app"]
