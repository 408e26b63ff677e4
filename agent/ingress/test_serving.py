"""The whole ingress with real Caddy and real backends: what is served, and what never drops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from agent.ingress.testbed.bed import ROOT, Bed, Load, exactly, route, until
from agent.ingress.testbed.control import ControlPlane
from agent.routing import HostRoute, Target

pytestmark = pytest.mark.slow
HOST = "hello.localhost"


def test_every_kind_of_host_gets_its_answer_at_once(bed: Bed, control: ControlPlane) -> None:
    backend = bed.backend()
    control.publish(
        [
            route(HOST, 1, backend),
            route("shop.example.org", 1, backend),
            HostRoute("none.localhost", 2),
            HostRoute("closed.localhost", 3, True, [backend.target]),
        ]
    )
    bed.start()
    bed.until_served(HOST)
    assert bed.ask("shop.example.org:1234").body == b"b1"
    assert bed.ask("HELLO.LocalHost").body == b"b1"
    started = time.monotonic()
    for strange in ("nope.localhost", "127.0.0.1", "[::1]:80", "a..b", "-x.y", "foo_bar", "x" * 100, HOST + "."):
        answer = bed.ask(strange)
        assert answer.status == 404, strange
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert time.monotonic() - started < 1.5
    missing = json.loads(bed.ask("nope.localhost").body)
    assert missing["code"] == "unknown_host"
    assert "nope.localhost" in missing["detail"]
    assert b"<h1>" in bed.ask("nope.localhost", headers={"Accept": "text/html,*/*"}).body
    started = time.monotonic()
    none, closed = bed.ask("none.localhost"), bed.ask("closed.localhost")
    assert time.monotonic() - started < 0.5
    assert (none.status, closed.status) == (503, 503)
    assert json.loads(none.body)["code"] == "no_instance"
    assert json.loads(closed.body)["code"] == "maintenance"
    assert int(none.headers["Retry-After"]) > 0
    assert bed.ask("none.localhost", method="POST", body=bytes(3_000_000)).status == 503


def test_headers_streams_uploads_and_websockets_pass_through(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    seen = bed.ask(
        HOST,
        "/headers",
        headers={
            "X-Forwarded-For": "6.6.6.6",
            "X-Real-IP": "6.6.6.6",
            "Forwarded": "for=6.6.6.6",
            "Accept-Encoding": "identity",
        },
    ).body.decode()
    assert "6.6.6.6" not in seen
    assert "X-Forwarded-For: 127.0.0.1\r\n" in seen
    assert f"X-Forwarded-Host: {HOST}\r\n" in seen
    assert "X-Forwarded-Proto: http\r\n" in seen
    assert f"Host: {HOST}\r\n" in seen
    assert bed.ask(HOST, "/upload", "POST", body=bytes(40 << 20)).body == str(40 << 20).encode()
    chunks = (bytes(65536) for _ in range(64))
    assert bed.ask(HOST, "/upload", "PUT", body=chunks, encode_chunked=True).body == str(4 << 20).encode()
    assert len(bed.ask(HOST, "/big?40").body) == 40 << 20

    with socket.create_connection(("127.0.0.1", bed.port), 10) as sock:
        sock.sendall(f"GET /stream?20 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        until(lambda: b"000" in sock.recv(4096), what="the first chunk")
        started = time.monotonic()
        data = b""
        while b"019" not in data:
            data += sock.recv(4096)
        assert time.monotonic() - started > 0.5, "the stream came all at once"
    with socket.create_connection(("127.0.0.1", bed.port), 10) as sock:
        request = f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        sock.sendall(request.encode())
        assert b" 101 " in sock.recv(4096).split(b"\r\n")[0]
        for word in (b"one", b"two"):
            sock.sendall(word)
            assert exactly(sock, len(word)) == word


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "new connections"])
def test_a_change_of_members_under_load_drops_no_request(bed: Bed, control: ControlPlane, keep_alive: bool) -> None:
    backends = [bed.backend() for _ in range(4)]
    control.publish([route(HOST, 1, *backends[:2])])
    bed.start()
    bed.until_served(HOST)
    with Load(bed.port, HOST, keep_alive) as load:
        for members in (backends, backends[2:], backends[:1], backends[1:3]):
            control.publish([route(HOST, 1, *members)])
            load.answers.clear()
            names = {f"b{member.number}" for member in members}
            until(lambda names=names: names <= set(load.answers), what=f"{names} to serve")
        old = backends[0]
        # Out of the answers for longer than the refresh: it gets nothing any more and may go.
        until(lambda: load.quiet_s(f"b{old.number}") > 1.2, 10, what="the drained one to be quiet")
        old.kill()
        after = load.total
        until(lambda: load.total > after + 50)
    assert load.errors == []


def test_killing_one_of_three_backends_fails_no_idempotent_request(bed: Bed, control: ControlPlane) -> None:
    backends = [bed.backend() for _ in range(3)]
    control.publish([route(HOST, 1, *backends)])
    bed.start()
    bed.until_served(HOST)
    with (
        Load(bed.port, HOST, True, path="/slow?5") as load,
        Load(bed.port, HOST, False, 2) as fresh,
        Load(bed.port, HOST, True, 2, method="DELETE") as deletes,
    ):
        until(lambda: {"b1", "b2", "b3"} <= set(load.answers))
        backends[0].kill()
        at = load.total
        until(lambda: load.total > at + 300 and fresh.total > 300 and deletes.total > 300)
    assert load.errors + fresh.errors + deletes.errors == []


def test_an_app_whose_instances_all_refuse_is_tried_until_one_is_back(bed: Bed, control: ControlPlane) -> None:
    backend = bed.backend()
    control.publish([route(HOST, 1, backend)])
    bed.start()
    bed.until_served(HOST)
    backend.kill()
    answer = bed.ask(HOST)
    assert answer.status == 502
    assert json.loads(answer.body)["code"] == "no_instance"
    assert "Retry-After" in answer.headers
    other = bed.backend()
    control.publish([route(HOST, 1, backend, other)])
    bed.until_served(HOST, "b2")


def test_the_killed_ingress_serves_on_and_its_successor_adopts_without_a_drop(bed: Bed, control: ControlPlane) -> None:
    first, second = bed.backend(), bed.backend()
    control.publish([route(HOST, 1, first)])
    bed.start()
    bed.until_served(HOST)
    caddy = bed.caddy_pid()
    with Load(bed.port, HOST, True) as load, Load(bed.port, HOST, False) as fresh:
        until(lambda: load.total > 100 and fresh.total > 100)
        bed.kill()
        at, fresh_at, killed = load.total, fresh.total, time.monotonic()
        # It serves for longer than the refresh and the time a failed look-up is put up with.
        until(lambda: min(load.last_at["b1"], fresh.last_at["b1"]) > killed + 3.0, what="answers without the ingress")
        assert load.total > at + 100
        assert fresh.total > fresh_at + 100
        control.publish([route(HOST, 1, second)])
        bed.start()
        until(lambda: load.answers["b2"] > 10, what="the successor to route to the new member")
    assert load.errors + fresh.errors == []
    assert bed.caddy_pid() == caddy
    assert "caddy adopted" in bed.log.read_text()


def test_restarted_with_the_control_plane_dead_it_serves_from_the_stored_table(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend()), HostRoute("none.localhost", 2)])
    bed.start()
    bed.until_served(HOST)
    control.close()
    assert bed.terminate() == 0
    with pytest.raises(OSError, match="refused"):
        bed.ask(HOST)
    bed.start()
    assert bed.ask(HOST).body == b"b1"
    assert bed.ask("none.localhost").status == 503
    assert bed.ask("nope.localhost").status == 404


def test_caddy_carries_a_mark_of_its_own_and_no_secret(bed: Bed) -> None:
    bed.start(OMNI_PROCESS="ingress", OMNI_STATE="/somewhere", OMNI_TOKEN="secret", HTTP_PROXY="http://x")
    environment = psutil.Process(bed.caddy_pid()).environ()
    assert environment["OMNI_PROCESS"] == "caddy"
    assert environment["OMNI_STATE"] == "/somewhere"
    assert not {"OMNI_TOKEN", "HTTP_PROXY"} & set(environment)
    for name in ("caddy.json", "caddy-config.json", "ports.json"):
        assert (bed.state / name).stat().st_mode & 0o077 == 0
    assert (bed.state / "run").stat().st_mode & 0o077 == 0


def test_a_stop_ends_within_the_launchers_patience_with_a_stream_open(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    caddy = bed.caddy_pid()
    with socket.create_connection(("127.0.0.1", bed.port), 10) as sock:
        sock.sendall(f"GET /stream?1000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert sock.recv(100)
        started = time.monotonic()
        assert bed.terminate() == 0
        assert time.monotonic() - started < 7
    # whoever inherited it has to reap it: a zombie is as gone as it can be
    assert not psutil.pid_exists(caddy) or psutil.Process(caddy).status() == psutil.STATUS_ZOMBIE


def test_a_dead_caddy_is_started_again(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    caddy = bed.caddy_pid()
    os.kill(caddy, signal.SIGKILL)
    started = time.monotonic()
    until(lambda: bed.ask(HOST).status == 200)
    assert time.monotonic() - started < 3
    assert bed.caddy_pid() != caddy


def test_another_build_of_caddy_replaces_the_old_one_under_load(bed: Bed, control: ControlPlane, tmp_path) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    caddy = bed.caddy_pid()
    copy = tmp_path / "caddy-new"
    copy.write_bytes(open(f"/proc/{caddy}/exe", "rb").read())  # noqa: SIM115, PTH123
    copy.chmod(0o755)
    with Load(bed.port, HOST, False) as load:
        until(lambda: load.total > 50)
        bed.kill()
        bed.start(OMNI_CADDY_BIN=str(copy))
        at = load.total
        until(lambda: load.total > at + 50)
    assert "caddy replaced" in bed.log.read_text()
    assert bed.caddy_pid() != caddy
    assert load.errors == []


def test_who_comes_while_caddy_is_started_again_waits_and_is_served(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    caddy = psutil.Process(bed.caddy_pid())
    caddy.kill()
    caddy.wait(5)
    assert bed.ask(HOST).status == 200
    assert bed.caddy_pid() != caddy.pid


def test_idle_apps_outlast_a_short_death_of_the_ingress(bed: Bed, control: ControlPlane) -> None:
    asked = bed.backend()
    control.publish([route(HOST, 1, asked), route("never.asked", 2, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    bed.kill()
    # Once Caddy has closed its idle connection, it must ask for the address to open one anew.
    until(lambda: not bed.has_connection_to(asked), what="Caddy to close its idle connection")
    found: list[int] = []
    hosts = (HOST, "never.asked")
    threads = [threading.Thread(target=lambda host=host: found.append(bed.ask(host).status)) for host in hosts]
    for thread in threads:
        thread.start()
    bed.start()
    for thread in threads:
        thread.join()
    assert found == [200, 200]


def test_when_its_own_ports_are_taken_it_reloads_caddy_to_others(bed: Bed, control: ControlPlane) -> None:
    control.publish([route(HOST, 1, bed.backend())])
    bed.start()
    bed.until_served(HOST)
    caddy = bed.caddy_pid()
    bed.kill()
    taken = json.loads((bed.state / "ports.json").read_text())
    with (
        socket.create_server(("127.0.0.1", taken["dns"])),
        socket.create_server(("127.0.0.1", taken["pages"])),
        Load(bed.port, HOST, False) as load,
    ):
        bed.start()
        at = load.total
        until(lambda: load.total > at + 300)
        assert bed.ask("nope.localhost").status == 404
    assert "caddy reloaded" in bed.log.read_text()
    assert bed.caddy_pid() == caddy
    # At most what was under way at that moment: the old configuration's resolver is gone for good, and a request that
    # waits for another try is not carried over into the new one.
    assert len(load.errors) <= load.clients


def test_a_taken_port_is_named_and_not_shared(bed: Bed) -> None:
    with socket.create_server(("127.0.0.1", bed.port)):
        done = subprocess.run(
            [sys.executable, "-m", "agent.ingress", "--config", str(bed.config)],
            capture_output=True,
            timeout=20,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{bed.port}" in done.stderr.decode()
    assert f"pid {os.getpid()}" in done.stderr.decode()


def test_counts_equal_the_requests_sent(bed: Bed, control: ControlPlane) -> None:
    one, two = bed.backend(), bed.backend()
    control.publish(
        [
            route("one.localhost", 11, one),
            route("two.localhost", 22, two),
            HostRoute("none.localhost", 33, False, []),
            HostRoute("gone.localhost", 44, False, [Target(99, "127.0.0.1", bed.port + 1)]),
        ]
    )
    bed.start()
    bed.until_served("two.localhost")
    sent = 1
    for _ in range(200):
        bed.ask("one.localhost")
    for i in range(100):
        bed.ask("two.localhost", "/fail" if i % 4 == 0 else "/slow?12")
    for _ in range(7):
        bed.ask("none.localhost")
        bed.ask("unknown.localhost")
    bed.kill()  # what is not yet counted is found by the successor
    for _ in range(50):
        bed.ask("one.localhost")
    bed.start()

    def totals() -> dict[tuple[int, int], tuple[int, int, int]]:
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        for row in list(control.rows):
            key = (row["app_id"], row["instance_id"])
            n, failed, hist = found.get(key, (0, 0, 0))
            found[key] = (n + row["requests"], failed + row["failed"], hist + sum(row["histogram"]))
        return found

    wanted = {(11, 1): (250, 0, 250), (33, 0): (7, 7, 7)}
    until(lambda: wanted.items() <= totals().items(), what=f"{wanted}")
    n, failed, hist = until(lambda: totals().get((22, 2)))
    assert (n - sent >= 100, failed, hist) == (True, 25, n)
    assert all(app in (11, 22, 33) for app, _ in totals())
    slow = [sum(row["histogram"][:5]) for row in control.rows if row["app_id"] == 22]
    assert sum(slow) < n, "75 requests took 12 ms and more"
