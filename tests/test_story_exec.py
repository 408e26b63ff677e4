"""Commands in running instances over a WebSocket: through any member, with real agents; by the CLI at a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.running_platform import PROJECT, Api, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]
APP = """
import http.server, os
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture(params=["process"])
def running(platform: Platform, request: pytest.FixtureRequest) -> Any:
    api = platform.api(platform.leader())
    wait_for(lambda: [n["status"] for n in api.ok("GET", "/nodes")["items"]].count("ready") == 3, "three nodes")
    api.create("talker", strategy={"min_ready_s": 0.1}, instances=3)
    api.built("talker", "1", archive(platform.state / "none", Procfile="web: python3 app.py", app__py=APP))
    api.healthy("talker", 3, "1")
    yield api.ok("GET", "/app/talker/instances?status=running")["items"]
    api("DELETE", "/app/talker")
    wait_for(lambda: api("GET", "/app/talker/info").status_code == 404, "the app's end")


def opened(api: Api, instance: dict[str, Any], command: Any, **fields: Any) -> ClientConnection:
    made = api.ok("POST", f"/app/talker/instances/{instance['id']}/exec", {"command": command, **fields})
    return connect(f"ws{str(api.client.base_url).removeprefix('http').rstrip('/')}{made['url']}", proxy=None)


def heard(socket: ClientConnection) -> tuple[bytes, bytes, dict[str, Any]]:
    out, err, end = b"", b"", {}
    with contextlib.suppress(ConnectionClosedError):
        for message in socket:
            if isinstance(message, str):
                end = json.loads(message)
            elif message[:1] == b"\x01":
                out += message[1:]
            else:
                err += message[1:]
    return out, err, end


def events(api: Api, kind: str) -> list[dict[str, Any]]:
    return [one for one in api.ok("GET", "/events?app=talker&limit=100")["items"] if one["kind"] == kind]


def test_any_member_reaches_any_instance_and_events_tell_who_did_what(
    platform: Platform, running: list[dict[str, Any]]
) -> None:
    assert len({one["node"] for one in running}) == 3
    for member in range(3):
        for instance in running:
            api = platform.api(member)
            with opened(api, instance, 'read x; echo "$x $OMNI_INSTANCE_ID"; echo oops >&2; exit 3') as socket:
                socket.send(b"\x00hello\n")
                out, err, end = heard(socket)
            assert (out, err) == (f"hello {instance['id']}\n".encode(), b"oops\n")
            assert (end["type"], end["code"], end["reason"]) == ("exit", 3, "exited")
    ended = wait_for(lambda: [e for e in events(api, "exec.ended") if len(events(api, "exec.ended")) == 9], "the ends")
    assert ended[0]["change"]["exit_code"] == 3
    assert "read x" in ended[0]["change"]["command"]
    assert "hello" not in json.dumps(ended)
    assert ended[0]["change"]["by"]


def test_who_leaves_ends_his_command_and_a_ticket_is_good_once(
    platform: Platform, running: list[dict[str, Any]]
) -> None:
    api, instance = platform.api(1), running[0]
    made = api.ok("POST", f"/app/talker/instances/{instance['id']}/exec", {"command": ["sleep", "987"], "tty": True})
    url = f"ws{platform.members[1].removeprefix('http')}{made['url']}"
    with pytest.raises(InvalidStatus):
        connect(url, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]
    with connect(url, proxy=None):
        sessions = f"/app/talker/instances/{instance['id']}/exec"
        wait_for(lambda: api.ok("GET", sessions)["items"][0]["status"] == "running", "the session to run")
        wait_for(lambda: subprocess.run(["pgrep", "-xf", "sleep 987"], check=False).returncode == 0, "the command")
        with connect(url, proxy=None) as second:
            assert heard(second)[2]["code"] == "ticket_used"
    wait_for(lambda: subprocess.run(["pgrep", "-xf", "sleep 987"], check=False).returncode == 1, "the command's end")
    wait_for(lambda: api.ok("GET", sessions)["items"][0]["reason"] == "closed", "the session's end")


def test_at_a_terminal_by_the_cli(platform: Platform, running: list[dict[str, Any]]) -> None:
    environment = {**os.environ, "OMNI_URL": platform.members[2], "OMNI_TOKEN": platform.token}
    command = [sys.executable, "-m", "cli", "exec", "talker"]
    plain = subprocess.run(
        [*command, "--", "sh", "-c", "cat; echo no >&2; exit 9"],
        cwd=PROJECT, env=environment, input=b"said\n", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (plain.returncode, plain.stdout, plain.stderr) == (9, b"said\n", b"no\n")
    master, slave = pty.openpty()
    with subprocess.Popen([*command, str(running[1]["id"]), "--", "sh"], cwd=PROJECT, env=environment,
                          stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as shell:  # fmt: skip
        os.close(slave)
        os.write(master, b"test -t 0 && echo on a ter''minal $OMNI_INSTANCE_ID; exit 4\n")
        said = b""
        wanted = f"on a terminal {running[1]['id']}".encode()
        while wanted not in said and select.select([master], [], [], 30)[0]:
            said += os.read(master, 4096)
        assert wanted in said
        assert shell.wait(30) == 4
    os.close(master)
