"""Internal services on a real platform: flapping, silences, maintenance, where checks may go, a remedy that restarts an
app, and the one alert that is told while the platform's own database is dead."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import signal
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import RaftClient
from omni.kernel.config import load
from omni.testing.mariadb import PrivateMariaDB
from services.outage import RECORD
from tests.running_platform import Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long, pytest.mark.database]
SECRET = "a secret of the story"
OFTEN = {"interval_s": 1, "timeout_s": 1, "healthy_threshold": 1, "unhealthy_threshold": 1, "start_period_s": 0}
DATABASE = "platform:database"

BREAKABLE = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
state = {"well": True}
class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/break":
            state["well"] = False
        self.send_response(200 if state["well"] else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answering).serve_forever()
"""


class Web:
    """An HTTP server that does as it is told: answers well or not, sends elsewhere, or hears of alerts."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.status, self.goes_to, self.hits = 200, "", 0
        self.told: list[dict[str, Any]] = []
        self.forged = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.hits += 1
                self.send_response(302 if outer.goes_to else outer.current())
                if outer.goes_to:
                    self.send_header("Location", outer.goes_to)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                outer._hear(dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    def current(self) -> int:
        return self.status

    def _hear(self, headers: dict[str, str], body: bytes) -> None:
        given = {name.lower(): value for name, value in headers.items()}
        signed = f"{given.get('webhook-id')}.{given.get('webhook-timestamp')}.".encode() + body
        digest = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        self.forged += given.get("webhook-signature") != f"v1,{digest}"
        self.told.append(json.loads(body))

    def of(self, service: str) -> list[str]:
        return [one["type"] for one in self.told if one["data"]["service"]["name"] == service]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Front(Web):
    """Answers as the app behind it does."""

    def __init__(self, platform: Platform, app: dict[str, Any]) -> None:
        self._port, self._host = platform.config["ingress"]["port"], httpx.URL(app["urls"][0]).host
        super().__init__()

    def current(self) -> int:
        asking = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            asking.request("GET", "/", headers={"Host": self._host})
            return asking.getresponse().status
        except (OSError, http.client.HTTPException):
            return 502
        finally:
            asking.close()


class MailServer:
    """As much of SMTP as taking a mail needs; `mails` are their subjects."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self.wfile.write(b"220 story\r\n")
                    while line := self.rfile.readline():
                        word = line[:4].upper().strip()
                        if word == b"DATA":
                            self.wfile.write(b"354 go on\r\n")
                            text = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
                            outer.mails += [one[9:] for one in text.splitlines() if one.startswith("Subject: ")]
                        elif word == b"QUIT":
                            self.wfile.write(b"221 bye\r\n")
                            return
                        self.wfile.write(b"250 fine\r\n")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class World:
    platform: Platform
    database: PrivateMariaDB
    receiver: Web
    mail: MailServer
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def api(self) -> Any:
        return self.platform.api(self.platform.leader())

    def web(self, address: str = "127.0.0.1") -> Web:
        made = Web(address)
        self.closing.callback(made.close)
        return made

    def watch(self, name: str, url: str, **fields: Any) -> None:
        check = {"type": "http", "url": url, "status_max": 299}
        self.api.ok("POST", "/services", {"name": name, "check": check, **OFTEN, **fields})

    def says(self, name: str) -> dict[str, Any]:
        return dict(self.api.ok("GET", f"/services/{name}"))

    def is_said(self, name: str, state: str, timeout_s: float = 60) -> dict[str, Any]:
        return wait_for(lambda: (one := self.says(name))["state"] == state and one, f"{name}: {state}", timeout_s) or {}

    def alerts(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.api.ok("GET", "/alerts?limit=500")["items"] if one["service"]["name"] == name]

    def one_alert(self, name: str) -> dict[str, Any]:
        return wait_for(lambda: self.alerts(name), f"the alert of {name}", 60)[0]

    def told(self, name: str, *types: str, timeout_s: float = 60) -> None:
        wait_for(lambda: self.receiver.of(name) == list(types), f"{name} was told as {types}", timeout_s)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Three members on a MariaDB that can be killed; checks may go to this host's own address and no other."""
    with PrivateMariaDB(durable=True) as database, contextlib.ExitStack() as closing:
        receiver, mail = Web(), MailServer()
        closing.callback(receiver.close)
        closing.callback(mail.close)
        running = Platform.prepared(
            tmp_path_factory.mktemp("watched"), members=3,
            environment={"OMNI_DATABASE_URL": database.create("omni")}, outgoing={"allow": "127.0.0.1/32"},
            alerts={"webhook_url": receiver.url, "webhook_secret": SECRET, "mail_to": "ops@story.example",
                    "smtp_host": "127.0.0.1", "smtp_port": mail.port, "smtp_security": "none", "group_s": 1},
        )  # fmt: skip
        running.migrates = True
        closing.callback(running.stop)
        running.start(timeout_s=300)
        found = World(running, database, receiver, mail, closing)
        wait_for(lambda: found.says(DATABASE)["state"] == "healthy", "the platform's own services", 60)
        yield found
        assert receiver.forged == 0


def test_flapping_is_damped_shown_and_ends(world: World) -> None:
    web = world.web()
    world.watch("flaps", web.url)
    world.is_said("flaps", "healthy")
    for number in range(40):
        if world.says("flaps")["flapping"]:
            break
        web.status = 500 if number % 2 == 0 else 200
        wait_for(lambda: (s := world.says("flaps"))["flapping"] or ("500" in s["detail"]) == (web.status == 500),
                 "the change to be seen", 30)  # fmt: skip
    said = world.says("flaps")
    assert (said["flapping"], said["state"], said["reason"]) == (True, "degraded", "flapping"), said
    web.status = 200
    active = [one for one in world.alerts("flaps") if one["status"] != "resolved"]
    assert len(active) == 1, "it keeps its alert while it flaps"
    wait_for(lambda: not world.says("flaps")["flapping"], "the end of the flapping", 360, every_s=1)
    world.is_said("flaps", "healthy")
    wait_for(lambda: all(one["status"] == "resolved" for one in world.alerts("flaps")), "its alerts' end")


def test_a_silence_keeps_an_alert_from_being_told_and_not_from_being_shown(world: World) -> None:
    quiet, loud = world.web(), world.web()
    for name, web in (("hushed-one", quiet), ("loud-one", loud)):
        world.watch(name, web.url)
        world.is_said(name, "healthy")
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).isoformat()
    silence = world.api.ok("POST", "/silences", {"pattern": "hushed-*", "reason": "moving", "ends_at": ends})
    quiet.status = 500
    assert world.one_alert("hushed-one")["silenced"] is True
    loud.status = 500
    world.told("loud-one", "alert.opened")  # whoever would have told of the other has had its turn
    assert world.receiver.of("hushed-one") == []
    world.api.ok("DELETE", f"/silences/{silence['id']}")
    world.told("hushed-one", "alert.opened")
    quiet.status = loud.status = 200
    world.told("hushed-one", "alert.opened", "alert.resolved")
    world.told("loud-one", "alert.opened", "alert.resolved")


def test_maintenance_is_no_alert_and_ends_by_itself(world: World) -> None:
    web = world.web()
    world.watch("repaired", web.url)
    world.is_said("repaired", "healthy")
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=25)).isoformat()
    world.api.ok("PATCH", "/services/repaired", {"maintenance": True, "maintenance_until": until})
    web.status = 500
    world.is_said("repaired", "maintenance")
    assert world.alerts("repaired") == []
    said = world.is_said("repaired", "unhealthy", 90)
    assert said["maintenance"] is False
    world.told("repaired", "alert.opened")
    web.status = 200
    world.told("repaired", "alert.opened", "alert.resolved")


def test_checks_go_where_the_policy_lets_them_and_follow_nobody_elsewhere(world: World) -> None:
    elsewhere, sends = world.web("127.0.0.3"), world.web()
    sends.goes_to = elsewhere.url
    for name, url in (("metadata", "http://169.254.169.254/latest/"), ("loopback", elsewhere.url)):
        answer = world.api("POST", "/services", {"name": name, "check": {"type": "http", "url": url}})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "address_refused"), answer.text
    port = elsewhere.server.server_port
    names = {"named-metadata": "http://0xA9FEA9FE/", "named-loopback": f"http://127.3:{port}/", "sent-on": sends.url}
    for name, url in names.items():  # the resolver knows these as addresses
        world.watch(name, url)
    words = {"named-metadata": "metadata address", "named-loopback": "outgoing.allow", "sent-on": "302"}
    for name, word in words.items():
        assert word in world.is_said(name, "unhealthy")["detail"]
    assert sends.hits > 0
    assert elsewhere.hits == 0, "nobody went there"
    for name in names:
        world.api.ok("DELETE", f"/services/{name}")


def test_a_remedy_restarts_the_app_behind_a_service(world: World, tmp_path: Path) -> None:
    app = world.api.create("behind", memory_mb=64)
    program = archive(tmp_path, Procfile="web: exec python app.py\n", app__py=BREAKABLE)
    world.api.built("behind", "1", program)
    app = world.api.healthy("behind", 1, "1")
    world.platform.answers(app)
    front = Front(world.platform, app)
    world.closing.callback(front.close)
    remedy = {"type": "restart_app", "app": "behind", "backoff_s": 60}
    world.watch("in-front", front.url, remedy=remedy, unhealthy_threshold=2, interval_s=4, timeout_s=4)
    world.is_said("in-front", "healthy")
    world.platform.open(app, "/break")
    runs = wait_for(lambda: [one for one in world.api.ok("GET", "/services/in-front/remedies")["items"]
                             if one["status"] != "running"], "the remedy's outcome", 300)  # fmt: skip
    assert [(one["type"], one["status"]) for one in runs] == [("restart_app", "succeeded")]
    world.is_said("in-front", "healthy", 120)
    world.told("in-front", "alert.opened", "alert.resolved")
    kinds = [one["kind"] for one in world.api.ok("GET", "/events?limit=500")["items"]]
    assert (kinds.count("remedy.started"), kinds.count("remedy.succeeded")) == (1, 1)


@pytest.mark.parametrize("leader_too", [False, True], ids=["alone", "with the leader"])
def test_a_dead_database_is_told_while_it_is_dead(world: World, leader_too: bool) -> None:
    wait_for(lambda: world.says(DATABASE)["state"] == "healthy" and not _open(world), "a quiet beginning", 60)
    wait_for(lambda: _armed(world), "the order that holds without the database", 30)
    before, mails, leader = len(world.receiver.told), len(world.mail.mails), world.platform.leader()
    world.database.stop(kill=True)
    if leader_too:
        os.killpg(world.platform.supervisor(leader), signal.SIGKILL)

    def told() -> list[dict[str, Any]]:
        return [one for one in world.receiver.told[before:] if one["data"]["service"]["name"] == DATABASE]

    wait_for(told, "the dead database to be told", 90)
    wait_for(lambda: any(DATABASE in one for one in world.mail.mails[mails:]), "the mail", 30)
    first = told()[0]
    assert (first["type"], first["data"]["id"], first["data"]["severity"]) == ("alert.opened", None, "critical")
    world.database.start()
    wait_for(lambda: len(told()) == 2, "its end to be told", 120)
    wait_for(lambda: sum(DATABASE in one for one in world.mail.mails[mails:]) == 2, "the mail of its end", 60)
    assert [one["type"] for one in told()] == ["alert.opened", "alert.resolved"]
    assert told()[1]["data"]["key"] == first["data"]["key"]
    (alert,) = [one for one in world.alerts(DATABASE) if one["key"] == first["data"]["key"]]
    assert (alert["id"], alert["status"], alert["resolution"]) == (told()[1]["data"]["id"], "resolved", "recovered")
    assert alert["opened_at"] == first["data"]["opened_at"]


def _open(world: World) -> bool:
    return any(one["status"] != "resolved" for one in world.alerts(DATABASE))


def _armed(world: World) -> bool:
    """Whether the leader knows that a next death is to be told: an alert that is over was noticed."""
    given = load(world.platform.state.parent / "config.json", {"OMNI_STATE": str(world.platform.state)})
    for member in world.platform.config["instances"]:
        with contextlib.suppress(ConsensusUnavailable):
            state = RaftClient(given.socket_path(f"raft-{member['port']}")).status()["state"]
            return str(state["services"].get(RECORD, {}).get("since", "")).startswith("1970")
    return False
