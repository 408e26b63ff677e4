"""Members come and go while the platform runs: one is added, the leader is removed, one returns with a fresh disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.running_platform import PROJECT, Api, Platform, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


class Nodes:
    """Nodes that the test starts itself, beside those of `start.sh`."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, port: int, config: Path) -> None:
        command = [sys.executable, "-m", "omni.launch.node", "--port", str(port), "--config", str(config)]
        environment = {**os.environ, "OMNI_STATE": str(self.platform.state)}
        with (self.platform.state.parent / f"node-{port}.out").open("ab") as out:
            self.started.append(
                subprocess.Popen(command, cwd=PROJECT, stdout=out, stderr=out, env=environment, start_new_session=True)
            )

    def stop(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            process.wait(30)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    running = Platform.prepared(tmp_path)
    running.start("--no-restart")
    yield running
    running.stop()


@pytest.fixture
def nodes(platform: Platform) -> Iterator[Nodes]:
    made = Nodes(platform)
    yield made
    made.stop()


def _status(api: Api) -> dict[str, Any]:
    return dict(api.ok("GET", "/cluster/status"))


def _all_able(api: Api, count: int) -> bool:
    answer = api("GET", "/cluster/status")
    members = answer.json()["members"] if answer.status_code == 200 else []
    return len(members) == count and all(member["reachable"] and member["able"] for member in members)


def _kill(platform: Platform, member: int) -> None:
    group = platform.supervisor(member)
    os.killpg(group, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(group), "the node's end", 10)


def test_a_member_is_added_votes_and_leads(platform: Platform, nodes: Nodes, tmp_path: Path) -> None:
    api = platform.api()
    entries = platform.config["instances"]
    port = platform.config["ingress"]["port"] + 1  # free: a platform has a block of ports
    added = api.ok("POST", "/cluster/members", {"address": "127.0.0.1", "port": port})
    assert added == {"id": f"127.0.0.1-{port}", "address": f"127.0.0.1:{port}"}
    assert api.ok("POST", "/cluster/members", {"address": "127.0.0.1", "port": port}) == added, "again is harmless"
    wider = tmp_path / "wider.json"
    wider.write_text(json.dumps({**platform.config, "instances": [*entries, {"port": port, "address": "127.0.0.1"}]}))
    nodes.start(port, wider)
    wait_for(lambda: _all_able(api, 4), "four members that could lead", 90)

    # four members need three votes: with one of the first three dead, the new one's counts
    victim = next(member for member in platform.followers() if member != 0)
    _kill(platform, victim)
    api.ok("POST", "/app/create", {"name": "with-three-of-four"}, headers={"Idempotency-Key": "a"})
    moved = api.ok("POST", "/cluster/transfer", {"to": added["id"]})
    assert moved["leader"] == added["address"]
    fourth = Api(f"http://{added['address']}", platform.token)
    fourth.ok("POST", "/app/create", {"name": "by-the-fourth"})
    assert _status(api)["leader"] == added["address"]

    # the dead one leaves for good; then the leader itself is removed and hands over first
    dead = f"127.0.0.1-{entries[victim]['port']}"
    assert fourth("DELETE", f"/cluster/members/{dead}").status_code == 204
    assert fourth("DELETE", f"/cluster/members/{dead}").status_code == 404
    assert api("DELETE", f"/cluster/members/{added['id']}").status_code == 204
    status = wait_for(lambda: _led_by_others(api, added["address"]), "another leader", 20)
    assert {member["id"] for member in status["members"]} == {
        f"127.0.0.1-{entry['port']}" for index, entry in enumerate(entries) if index != victim
    }
    api.ok("POST", "/app/create", {"name": "without-it"})
    kinds = [event["kind"] for event in api.ok("GET", "/events?limit=500")["items"]]
    assert kinds.count("cluster.member_add_requested") == 2
    assert kinds.count("cluster.member_remove_requested") == 2
    assert kinds.count("cluster.transfer_requested") == 1


def _led_by_others(api: Api, address: str) -> dict[str, Any] | None:
    status = _status(api)
    return status if status["leader"] not in (None, address) and len(status["members"]) == 2 else None


@pytest.mark.long
def test_a_lost_nodes_replacement_joins_with_a_fresh_disk(platform: Platform, nodes: Nodes) -> None:
    api = platform.api(platform.leader())
    api.create("before")
    lost = platform.followers()[0]
    port = platform.config["instances"][lost]["port"]
    _kill(platform, lost)
    shutil.rmtree(platform.state / f"node-{port}")  # what was on its disk; the platform's own keys are given to it
    api.create("meanwhile")
    nodes.start(port, platform.state.parent / "config.json")
    wait_for(lambda: _all_able(api, 3), "its return", 90)
    fresh = platform.api(lost)
    wait_for(lambda: _serves(platform.members[lost]), "its readiness", 30)
    fresh.create("afterwards")
    assert {app["name"] for app in fresh.ok("GET", "/app")["items"]} >= {"before", "meanwhile", "afterwards"}
    moved = api.ok("POST", "/cluster/transfer", {"to": f"127.0.0.1-{port}"})
    assert moved["leader"] == f"127.0.0.1:{port}", "it has everything that it needs to lead"


@pytest.mark.long
def test_without_a_majority_reads_go_on_and_writes_are_refused_until_one_more_is_back(
    platform: Platform, nodes: Nodes
) -> None:
    left = platform.leader()
    api = platform.api(left)
    api.create("before")
    gone = platform.followers()
    for member in gone:
        _kill(platform, member)
    taken = ["before"]  # the leader may write until its lease ends
    refused = wait_for(lambda: _refusal(api, taken), "a refusal", 20)
    assert (refused["code"], refused["status"]) == ("no_leader", 503)
    assert sorted(app["name"] for app in api.ok("GET", "/app")["items"]) == sorted(taken)
    answer = api("GET", "/cluster/status")
    assert answer.json()["quorum"]["has"] is False
    assert not _serves(platform.members[left]), "not ready: a write would not be accepted"
    nodes.start(platform.config["instances"][gone[0]]["port"], platform.state.parent / "config.json")
    wait_for(lambda: _serves(platform.members[left]), "a leader again", 60)
    api.create("afterwards")


@pytest.mark.long
def test_members_that_are_lost_for_good_are_left_out_by_starting_raft_anew(platform: Platform, nodes: Nodes) -> None:
    """As docs/operations.md says it: the database knows everything but who may lead, and the fence keeps that safe."""
    api = platform.api(platform.leader())
    api.create("before")
    epoch = _status(api)["epoch"]
    ports = [entry["port"] for entry in platform.config["instances"]]
    for member in range(3):
        _kill(platform, member)
    smaller = platform.state.parent / "smaller.json"
    smaller.write_text(json.dumps({**platform.config, "instances": platform.config["instances"][:1]}))
    shutil.rmtree(platform.state / f"node-{ports[0]}" / "raft")
    nodes.start(ports[0], smaller)
    wait_for(lambda: _serves(platform.members[0]), "the survivor", 60)
    alone = platform.api(0)
    alone.create("alone")
    status = _status(alone)
    assert (len(status["members"]), status["epoch"]) == (1, epoch + 1)


def _refusal(api: Api, taken: list[str]) -> dict[str, Any] | None:
    """What a refused write is told; the name of one that is acknowledged goes to `taken`."""
    name = f"write-{len(taken)}"
    answer = api("POST", "/app/create", {"name": name}, headers={"Idempotency-Key": name})
    if answer.status_code == 503:
        return dict(answer.json())
    assert answer.status_code == 201, answer.text
    taken.append(name)
    return None


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=3).status_code == 200
    except httpx.HTTPError:
        return False
