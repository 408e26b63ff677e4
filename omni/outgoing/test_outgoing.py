"""Calls to addresses that users name: only where the policy lets them, never for longer or more than asked."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.outgoing import http, mail, retries, webhooks
from omni.outgoing import policy as policies
from sandbox.addresses import AddressPolicy

HERE = AddressPolicy.of(allow=["127.0.0.0/8"])


class Receiver(BaseHTTPRequestHandler):
    """Answers what its server was told; keeps what came."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.had.append((dict(self.headers), body))
        status, headers, answer = self.server.answers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815 - http.server names it

    def log_message(self, *_args: object) -> None:
        """Silence."""


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.had, server.answers = [], (200, {}, b"thanks")
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook?a=1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def listening(talk) -> Iterator[int]:
    """A TCP server whose connections are handled by `talk(socket)`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                talk(self.request)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_loopback_is_refused_unless_permitted(receiver):
    with pytest.raises(http.CallFailed, match="this host itself") as caught:
        http.send(http.Call("GET", receiver.url), 2, policy=AddressPolicy())
    assert caught.value.refused
    assert receiver.had == []
    assert http.send(http.Call("GET", receiver.url), 2, policy=HERE).body == b"thanks"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/"]
)
def test_metadata_is_refused_whatever_is_permitted(url):
    with pytest.raises(http.CallFailed, match="metadata"):
        http.send(http.Call("GET", url), 2, policy=AddressPolicy.of(allow=["0.0.0.0/0", "::/0"]))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/", "http://", "http://user:pw@h/", "http://h:99999/"])
def test_what_is_no_plain_http_url_is_refused(url):
    with pytest.raises(http.CallFailed) as caught:
        http.send(http.Call("GET", url), 2, policy=HERE)
    assert caught.value.refused


def test_a_name_that_changes_its_address_gains_nothing(receiver, monkeypatch):
    """DNS rebinding: the name is looked up once, and the connection goes to what was looked at."""
    asked = []

    def rebinding(host, port, _timeout):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    monkeypatch.setattr(policies, "resolve", rebinding)
    port = receiver.server_address[1]
    assert http.send(http.Call("GET", f"http://rebound.example:{port}/"), 2, policy=HERE).status == 200
    assert asked == ["rebound.example"]
    assert receiver.had[0][0]["Host"] == f"rebound.example:{port}"


def test_a_redirect_is_an_answer_and_is_not_followed(receiver):
    receiver.answers = (302, {"Location": "http://169.254.169.254/"}, b"")
    assert http.send(http.Call("GET", receiver.url), 2, policy=HERE).status == 302
    outcome = webhooks.deliver(webhooks.Endpoint(receiver.url, "s"), webhooks.Message("m", "t", {}), policy=HERE)
    assert (outcome.delivered, outcome.final) == (False, False)
    assert "not followed" in outcome.detail


def test_an_answer_is_read_up_to_the_limit(receiver):
    receiver.answers = (200, {}, b"x" * 1_000_000)
    assert len(http.send(http.Call("GET", receiver.url), 5, policy=HERE, limit=1000).body) == 1000


def test_a_server_that_drips_is_cut_off_at_the_deadline():
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not stop.wait(0.05):
            connection.sendall(b"x")

    with listening(drip) as port:
        begun = time.monotonic()
        with pytest.raises(http.CallFailed, match=r"no answer within 0\.5 s"):
            http.send(http.Call("GET", f"http://127.0.0.1:{port}/"), 0.5, policy=HERE)
        took = time.monotonic() - begun
        stop.set()
    assert took < 5


def test_a_message_is_signed_so_that_the_receiver_can_prove_it(receiver):
    secret = webhooks.new_secret()
    message = webhooks.Message("msg_1", "alert.opened", {"id": 7})
    outcome = webhooks.deliver(webhooks.Endpoint(receiver.url, secret), message, policy=HERE)
    assert (outcome.delivered, outcome.status) == (True, 200)
    headers, body = receiver.had[0]
    headers = {name.lower(): value for name, value in headers.items()}
    assert json.loads(body) == {"id": "msg_1", "type": "alert.opened", "data": {"id": 7}}
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "msg_1"


def test_the_signature_of_the_conventions_own_example():
    """The test vector of the Standard Webhooks specification's libraries."""
    signed = webhooks.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "delivered", "final"), [(204, True, True), (500, False, False), (404, False, False), (410, False, True)]
)
def test_what_an_answer_means(receiver, status, delivered, final):
    receiver.answers = (status, {}, b"")
    outcome = webhooks.deliver(webhooks.Endpoint(receiver.url, "s"), webhooks.Message("m", "t", {}), policy=HERE)
    assert (outcome.delivered, outcome.final, outcome.status) == (delivered, final, status)


def test_what_the_policy_forbids_is_given_up_at_once():
    endpoint = webhooks.Endpoint("http://127.0.0.1:9/", "s")
    outcome = webhooks.deliver(endpoint, webhooks.Message("m", "t", {}), policy=AddressPolicy())
    assert (outcome.delivered, outcome.final) == (False, True)


@given(st.integers(1, 40), st.floats(0, 1))
def test_pauses_grow_to_a_longest_one_and_end(attempt, chance):
    schedule = retries.Schedule(first_s=5, longest_s=100, attempts=12)
    pause = schedule.pause_s(attempt, chance)
    if attempt >= 12:
        assert pause is None
    else:
        assert pause is not None
        assert 4 <= pause <= 120 + 1e-9  # 0.8 + 0.4 is a little more than 1.2
        assert pause >= min(5 * 2 ** (attempt - 1), 100) * 0.8 - 1e-9


def test_a_mail_reaches_the_server_with_its_id():
    got: list[str] = []

    def talk(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        connection.sendall(b"220 hello\r\n")
        data = False
        for raw in lines:
            line = raw.decode().rstrip("\r\n")
            got.append(line)
            if data:
                if line == ".":
                    data = False
                    connection.sendall(b"250 taken\r\n")
            elif line.upper() == "DATA":
                data = True
                connection.sendall(b"354 go on\r\n")
            elif line.upper() == "QUIT":
                connection.sendall(b"221 bye\r\n")
                return
            else:
                connection.sendall(b"250 fine\r\n")

    one = mail.Mail("alert-7-opened", "omni@example.org", ("ops@example.org",), "down:\ndatabase", "It is down.")
    with listening(talk) as port:
        mail.send(mail.Server("127.0.0.1", port, security="none"), one, policy=HERE, timeout_s=5)
    assert "Message-ID: <alert-7-opened@omni>" in got
    assert "Subject: down: database" in got  # a line break in it starts no header of its own
    with pytest.raises(mail.MailFailed, match="this host itself") as caught:
        mail.send(mail.Server("127.0.0.1", port, security="none"), one, policy=AddressPolicy())
    assert caught.value.final


def test_a_mail_server_that_says_nothing_is_given_up():
    with listening(lambda connection: connection.recv(1)) as port, pytest.raises(mail.MailFailed) as caught:
        mail.send(
            mail.Server("127.0.0.1", port, security="none"),
            mail.Mail("i", "a@b", ("c@d",), "s", "t"),
            policy=HERE,
            timeout_s=0.3,
        )
    assert not caught.value.final
