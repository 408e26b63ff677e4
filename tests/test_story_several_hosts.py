"""Three hosts, one config.json, `./start.sh` on each: what works when any one of them is away.

Each host is a network namespace with a state directory of its own; MariaDB is reached by all. Skipped only where
namespaces are forbidden.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from consensus import identity
from omni.testing.hosts import NoNamespaces, refuse_where_forbidden
from omni.testing.several_hosts import SeveralHosts, wait_until_ready
from tests.running_platform import EXAMPLES, Api, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]
DOOR = 13000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeveralHosts]:
    try:
        refuse_where_forbidden()
    except NoNamespaces as why:
        pytest.skip(str(why))
    keys = {"artifacts": {"repair_after_s": 4.0}, "timings": {"node_lease_s": 5.0}}
    name = f"oh{os.getpid() % 100_000}"  # several runs may go on at once
    with SeveralHosts(tmp_path_factory.mktemp("hosts"), 3, name=name, keys=keys) as made:
        made.folder.parent.chmod(0o711)
        made.start()
        yield made


@pytest.fixture
def all_up(cluster: SeveralHosts) -> SeveralHosts:
    """Every host answers and knows the leader, whatever the last test did."""
    for number in range(cluster.hosts):
        wait_for(lambda at=number: _is_ready(cluster, at), f"host {number} being ready", 90)  # type: ignore[misc]
    return cluster


def _is_ready(cluster: SeveralHosts, number: int) -> bool:
    try:
        return httpx.get(cluster.members[number] + "/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def api(cluster: SeveralHosts, number: int) -> Api:
    return Api(cluster.members[number], cluster.token)


def leader_of(cluster: SeveralHosts, ask: int = 0) -> int | None:
    """The number of the host that leads, as host `ask` sees it."""
    said = api(cluster, ask).ok("GET", "/cluster/status")["leader"]
    return next((n for n, url in enumerate(cluster.members) if said and url.endswith(said)), None)


def roles(cluster: SeveralHosts) -> tuple[int, list[int]]:
    """The leader's number, and the followers'."""
    leader = wait_for(lambda: (leader_of(cluster),), "a leader")[0]
    assert leader is not None
    return leader, [number for number in range(cluster.hosts) if number != leader]


def holders(cluster: SeveralHosts, sha256: str) -> list[int]:
    name = f"{sha256[:2]}/{sha256}"
    return [n for n, started in enumerate(cluster.started) if (started.state / "artifacts" / name).exists()]


def test_each_host_runs_its_own_node_and_all_know_one_admin(all_up: SeveralHosts) -> None:
    cluster = all_up

    def all_reachable() -> bool:
        status = api(cluster, 0).ok("GET", "/cluster/status")
        return [member["reachable"] for member in status["members"]] == [True] * 3

    wait_for(all_reachable, "every member's being reachable")
    assert {Api(url, cluster.token)("GET", "/nodes").status_code for url in cluster.members} == {200}
    nodes = wait_for(lambda: _ready_nodes(cluster, 3), "three nodes that can run apps")
    assert {node["address"] for node in nodes} == {host.address for host in cluster.net.hosts}
    for started in cluster.started:
        folders = sorted(path.name for path in started.state.glob("node-*"))
        assert folders == ["node-8000"]
        told = json.loads((started.state / "node-8000" / "agent.json").read_text())
        own, *others = told["control_plane"]
        assert own == f"http://{started.host.address}:8000"
        assert len(others) == 2
        assert all(url.startswith("https://") for url in others)


def _ready_nodes(cluster: SeveralHosts, count: int) -> list[dict[str, Any]] | None:
    items = api(cluster, 0).ok("GET", "/nodes")["items"]
    return items if [node["status"] for node in items] == ["ready"] * count else None


@pytest.mark.long
def test_a_command_runs_in_an_instance_of_another_host_with_what_is_said_under_tls(all_up: SeveralHosts) -> None:
    cluster = all_up
    one = api(cluster, 0)
    one.create("talker", strategy={"min_ready_s": 0.1}, instances=3)
    assert one.built("talker", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    one.healthy("talker", 3, "1", 120)
    running = one.ok("GET", "/app/talker/instances?status=running")["items"]
    assert len({instance["node"] for instance in running}) == 3
    for number in range(cluster.hosts):
        for instance in running:
            with _opened(cluster, number, instance, 'read x; echo "$x $OMNI_INSTANCE_ID"; exit 3') as talk:
                talk.send(b"\x00hello\n")
                said, end = _heard(talk)
            assert (said, end.get("code")) == (f"hello {instance['id']}\n".encode(), 3), (number, instance, end)
    leader, _ = roles(cluster)
    (elsewhere, *_) = (found for found in running if cluster.net[leader].address not in found["node"])
    with _opened(cluster, leader, elsewhere, "stty size; sleep 600", tty=True, columns=90, rows=30) as talk:
        assert b"30 90" in bytes(talk.recv(30))  # a terminal, too
    ended = f"/app/talker/instances/{elsewhere['id']}/exec?limit=1"
    wait_for(lambda: one.ok("GET", ended)["items"][0]["status"] == "ended", "the end of what nobody hears any more", 60)
    one.ok("DELETE", "/app/talker")


def _opened(cluster: SeveralHosts, number: int, instance: dict[str, Any], command: str, **fields: Any) -> Any:
    path = f"/app/talker/instances/{instance['id']}/exec"
    made = api(cluster, number).ok("POST", path, {"command": command, **fields})
    return connect(f"ws{cluster.members[number].removeprefix('http')}{made['url']}", proxy=None)


def _heard(talk: Any) -> tuple[bytes, dict[str, Any]]:
    said, end = b"", {}
    for message in talk:
        if isinstance(message, str):
            end = json.loads(message)
        else:
            said += message[1:]
    return said, end


def test_strangers_do_not_get_through_the_door_of_the_other_hosts(all_up: SeveralHosts) -> None:
    address = all_up.net[0].address
    with socket.create_connection((address, DOOR), timeout=5) as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200" not in plain.recv(1000)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"https://{address}:{DOOR}/health/live", verify=bare, timeout=5)
    ours = identity.client_context(identity.make(all_up.secret, "agent@trial"))
    assert httpx.get(f"https://{address}:{DOOR}/health/live", verify=ours, timeout=5).status_code == 200


def test_an_upload_through_a_follower_is_on_two_hosts_before_it_is_acknowledged(all_up: SeveralHosts) -> None:
    cluster = all_up
    leader, (follower, _) = roles(cluster)
    api(cluster, follower).create("hello")
    data = archive(EXAMPLES / "hello")
    answer = api(cluster, follower).upload("hello", "1", data)
    assert answer.status_code == 202, answer.text
    sha256 = answer.json()["artifact"]["sha256"]
    found = holders(cluster, sha256)
    assert leader in found
    assert len(found) >= 2
    build = api(cluster, follower).built("hello", "1", data)
    assert build["status"] == "succeeded", build
    release = api(cluster, follower).ok("GET", "/app/hello/releases")["items"][0]
    assert release["version"] == "1"
    api(cluster, follower).ok("POST", "/app/hello/scale", {"instances": 3})
    api(cluster, follower).healthy("hello", 3, "1", 120)
    instances = api(cluster, leader).ok("GET", "/app/hello/instances")["items"]
    assert len({instance["node"] for instance in instances}) >= 2, "not only on the host that kept the package"
    for host in cluster.net.hosts:
        page = wait_for(lambda at=host.address: _open(at, "hello"), f"the app at {host.address}", 30)  # type: ignore[misc]
        assert page.status_code == 200


def _open(address: str, app: str) -> httpx.Response | None:
    answer = httpx.get(f"http://{address}:8080/", headers={"Host": f"{app}.localhost"}, timeout=10)
    return answer if answer.status_code == 200 else None


def test_a_form_of_the_console_works_on_a_follower(all_up: SeveralHosts) -> None:
    """Log-in, session and the forms' token on their way to the leader and back; the console itself changes nothing."""
    cluster = all_up
    leader, (follower, other) = roles(cluster)
    api(cluster, leader).create("shown")
    password = (cluster.started[0].state / "admin.password").read_text().strip()
    with httpx.Client(base_url=cluster.members[follower], timeout=30) as browser:
        token = _form_token(browser.get("/admin/login/").text)
        entered = browser.post(
            "/admin/login/?next=/admin/",
            data={"csrfmiddlewaretoken": token, "username": "admin", "password": password},
            headers={"Referer": cluster.members[follower]},
        )
        assert entered.status_code == 302, entered.text[:500]
        page = browser.get("/admin/apps/app/")
        assert page.status_code == 200
        assert "shown" in page.text
        path = re.search(r"/admin/apps/app/\d+/change/", page.text)
        assert path is not None
        sent = browser.post(path[0], data={"csrfmiddlewaretoken": browser.cookies["csrftoken"], "name": "x"})
        assert (sent.status_code, sent.json()["code"]) == (403, "forbidden"), "the form's token was right"
        assert sent.headers["Omni-Node"] == f"{cluster.net[leader].address}-8000", "the leader looked at it"
        forged = browser.post(path[0], data={"name": "x"})
        assert (forged.status_code, forged.json()["code"]) == (403, "csrf")
        for number in (leader, other):
            elsewhere = httpx.get(cluster.members[number] + "/admin/", cookies=dict(browser.cookies), timeout=30)
            assert elsewhere.status_code == 200, "one session for all members"


def _form_token(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None, page[:500]
    return found[1]


def test_a_key_is_replayed_by_the_next_leader(all_up: SeveralHosts) -> None:
    cluster = all_up
    leader, (follower, other) = roles(cluster)
    headers = {"Idempotency-Key": "made-once"}
    first = api(cluster, follower)("POST", "/app/create", {"name": "once", "memory_mb": 32}, headers=headers)
    assert first.status_code == 201
    cluster.kill(leader)
    begun = time.monotonic()
    again = wait_for(
        lambda: _accepted(
            api(cluster, other)("POST", "/app/create", {"name": "once", "memory_mb": 32}, headers=headers)
        ),
        "an answer of the next leader",
        30,
    )
    assert again.headers.get("Omni-Replayed") == "true"
    assert again.json()["id"] == first.json()["id"]
    assert time.monotonic() - begun < 15
    cluster.launch(leader)
    wait_until_ready(cluster.started[leader])


def _accepted(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code < 300 else None


def test_writes_through_followers_go_on_when_the_leaders_host_freezes(all_up: SeveralHosts) -> None:
    cluster = all_up
    leader, followers = roles(cluster)
    answers: list[tuple[bool, int, float, str]] = []
    stop = threading.Event()

    def write(number: int, keyed: bool) -> None:
        client, count = api(cluster, number), 0
        while not stop.is_set():
            count += 1
            name = f"frozen-{number}-{int(keyed)}-{count}"
            headers = {"Idempotency-Key": f"key-{name}"} if keyed else {}
            begun = time.monotonic()
            answer = client("POST", "/app/create", {"name": name, "memory_mb": 32}, headers=headers)
            code = "" if answer.status_code < 300 else str(answer.json().get("code"))
            answers.append((keyed, answer.status_code, time.monotonic() - begun, code))
            stop.wait(0.05)

    threads = [threading.Thread(target=write, args=(n, keyed)) for n in followers for keyed in (True, False)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answers) > 20, "a steady load", 60)
    thaw = cluster.freeze(leader)
    try:
        seen = len(answers)
        wait_for(lambda: len([a for a in answers[seen:] if a[1] == 201]) > 20, "writes after the freeze", 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        thaw()
    after = answers[seen - 4 :]
    assert max(took for _, _, took, _ in after) < 10, "nobody waits for the time-out of a frozen leader"
    assert {code for keyed, status, _, code in after if keyed and status >= 300} <= {"no_leader"}
    assert {code for keyed, status, _, code in after if not keyed and status >= 300} <= {"no_leader", "outcome_unknown"}


@pytest.mark.long
def test_the_copies_of_a_lost_host_are_made_again_and_go_with_the_app(all_up: SeveralHosts) -> None:
    cluster = all_up
    leader, followers = roles(cluster)
    client = api(cluster, followers[0])
    client.create("kept")
    data = archive(Path("/nonexistent"), Procfile="web: python3 -m http.server $PORT\n", note="kept")
    sha256 = client.upload("kept", "1", data, "?deploy=false").json()["artifact"]["sha256"]
    before = holders(cluster, sha256)
    lost = next(number for number in before if number != leader)
    left = next(number for number in followers if number != lost)
    cluster.kill(lost)
    try:
        wait_for(lambda: left in holders(cluster, sha256), "a copy on the third host", 60)
    finally:
        cluster.launch(lost)
        wait_until_ready(cluster.started[lost])
    assert set(holders(cluster, sha256)) == {0, 1, 2}
    api(cluster, left).ok("DELETE", "/app/kept")
    wait_for(lambda: holders(cluster, sha256) == [], "every copy being gone", 60)


def test_a_cut_off_leader_takes_no_write_and_the_others_do(all_up: SeveralHosts) -> None:
    cluster = all_up
    leader, (follower, _) = roles(cluster)
    cluster.net[leader].cut()
    try:
        took = wait_for(lambda: _create(cluster, follower, "after-cut"), "a write on the majority's side", 30)
        assert took.status_code == 201
        alone = cluster.started[leader].host.run(
            [
                "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST",
                "-H", f"Authorization: Bearer {cluster.token}", "-H", "Content-Type: application/json",
                "-d", '{"name": "alone"}', f"{cluster.members[leader]}/app/create",
            ],
            timeout_s=30,
        )  # fmt: skip
        assert alone.stdout == "503", subprocess.list2cmdline(alone.args)
    finally:
        cluster.net[leader].join()
    wait_for(lambda: _is_ready(cluster, leader), "the host being back", 60)


def _create(cluster: SeveralHosts, number: int, name: str) -> httpx.Response | None:
    answer = api(cluster, number)(
        "POST", "/app/create", {"name": name, "memory_mb": 32}, headers={"Idempotency-Key": name}
    )
    return answer if answer.status_code < 300 else None
