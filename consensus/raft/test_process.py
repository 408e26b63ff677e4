"""Real members on loopback: elections, ends of every kind, membership, and strangers at the port."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import CommandRefused, CommandUnknown
from consensus.raft.real_members import PROJECT, RealMembers, free_ports, holds_for, wait_for

pytestmark = pytest.mark.slow


def service(name: str) -> dict[str, Any]:
    return {"op": "service.set", "v": 1, "name": name, "state": "up", "since": "now"}


@pytest.fixture
def three(tmp_path: Path) -> Iterator[RealMembers]:
    with RealMembers(tmp_path) as members:
        members.start()
        members.settle()
        yield members


def quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def test_status_names_what_the_contract_names(three: RealMembers) -> None:
    leader = three.leader()
    status = three.client(leader).status()
    assert status["role"] == "leader"
    assert status["leader"] == f"127.0.0.1:{leader}"
    assert status["established"]
    assert status["quorum"] == {"size": 2, "reachable": 3, "has": True}
    assert {row["id"] for row in status["members"]} == {three.id(port) for port in three.ports}
    keys = {"id", "address", "http", "role", "reachable", "match_lag", "version", "last_seen_at", "able"}
    assert all(set(row) == keys for row in status["members"])
    assert set(status["state"]) == {"cluster", "members", "leader", "drains", "services"}
    follower = next(port for port in three.ports if port != leader)
    assert three.client(follower).status()["leader"] == f"127.0.0.1:{leader}"
    view = three.view(follower)
    assert view is not None
    assert (view.role, view.leader, view.established) == ("follower", f"127.0.0.1:{leader}", False)


def test_a_command_is_applied_through_any_member_and_a_refusal_is_a_reply(three: RealMembers) -> None:
    for port in three.ports:
        assert three.client(port).submit(service(f"s-{port}"))["ok"]
    assert three.client(three.ports[0]).submit({"op": "none", "v": 1})["code"] == "unknown_command"
    assert not three.client(three.ports[0]).submit({"op": "service.set", "v": 1, "name": "x" * 40_000})["ok"]
    wait_for(lambda: len(_services(three, three.ports[1])) == 3, 30)


def test_a_killed_leader_is_followed_within_a_second(three: RealMembers, capsys: Any) -> None:
    taken = []
    for _ in range(12):
        leader = three.settle()
        others = [port for port in three.ports if port != leader]
        three.kill(leader)
        taken.append(wait_for(lambda others=others: bool(set(three.leaders()) & set(others)), 30, three.logs))
        three.start(leader)
    with capsys.disabled():
        print(f"\nkill -> established: p50 {quantile(taken, 0.5):.3f} s, p95 {quantile(taken, 0.95):.3f} s")  # noqa: T201
    assert quantile(taken, 0.5) < 1.0


def test_a_frozen_leader_is_followed_and_wakes_up_as_nobody(three: RealMembers) -> None:
    leader = three.leader()
    others = [port for port in three.ports if port != leader]
    three.freeze(leader)
    assert wait_for(lambda: bool(set(three.leaders()) & set(others)), 30, three.logs) < 5.0
    assert three.view(leader) is None
    three.thaw(leader)
    wait_for(lambda: (view := three.view(leader)) is not None and view.role == "follower", 30, three.logs)
    assert len(three.leaders()) == 1


def test_a_leader_cut_off_stops_before_the_next_one_leads(three: RealMembers) -> None:
    for _ in range(3):
        leader = three.settle()
        others = [port for port in three.ports if port != leader]
        ids = [three.id(port) for port in others]
        for port in others:
            three.client(port).fault(drop=[three.id(leader)])
        three.client(leader).fault(drop=ids)
        assert holds_for(2.0, lambda: len(three.leaders()) < 2)
        assert three.leader(30.0, others) in others
        with pytest.raises(ConsensusUnavailable):
            three.client(leader).submit(service("x"), timeout_s=0.3)
        for port in three.ports:
            three.client(port).fault(drop=[])


def test_a_cut_off_follower_changes_nothing_when_it_returns(three: RealMembers) -> None:
    leader = three.settle()
    term = three.client(leader).status()["term"]
    follower = next(port for port in three.ports if port != leader)
    for port in three.ports:
        three.client(port).fault(drop=[three.id(follower)] if port != follower else [three.id(leader)])
    assert holds_for(4.0, lambda: set(three.leaders()) <= {leader})  # the connections are given up and dialled again
    for port in three.ports:
        three.client(port).fault(drop=[])
    assert three.settle() == leader
    assert three.client(leader).status()["term"] == term


@pytest.mark.long
def test_kills_in_a_loop_lose_nothing_that_was_acknowledged(three: RealMembers) -> None:
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(port: int) -> None:
        from consensus.raft.client import RaftClient

        client = RaftClient(str(three.folder / "run" / f"raft-{port}.sock"))
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{port}.{number}"
            with contextlib.suppress(ConsensusUnavailable, CommandUnknown, CommandRefused):
                if client.submit(service(name), timeout_s=1.0)["ok"]:
                    acknowledged.append(name)
            stop.wait(0.002)

    writers = [threading.Thread(target=write, args=(port,)) for port in three.ports]
    for writer in writers:
        writer.start()
    chance = random.Random(1)  # noqa: S311
    for _ in range(15):
        victim = chance.choice(three.ports)
        three.kill(victim)
        three.start(victim)
        wait_for(lambda: bool(three.leaders()), 30, three.logs)
        stop.wait(chance.uniform(0.0, 0.5))
    stop.set()
    for writer in writers:
        writer.join()
    leader = three.settle()
    services = three.client(leader).status()["state"]["services"]
    assert len(acknowledged) > 50
    assert [name for name in acknowledged if name not in services] == []


def test_the_leadership_moves_in_milliseconds(three: RealMembers, capsys: Any) -> None:
    taken = []
    for _ in range(10):
        leader = three.settle()
        to = random.choice([port for port in three.ports if port != leader])  # noqa: S311
        begun = time.perf_counter()
        assert three.client(leader).transfer(three.id(to)) == f"127.0.0.1:{to}"
        taken.append(time.perf_counter() - begun)
        wait_for(lambda to=to: three.leaders() == [to], 30)
    with capsys.disabled():
        print(f"\ntransfer: p50 {quantile(taken, 0.5) * 1e3:.1f} ms, max {max(taken) * 1e3:.1f} ms")  # noqa: T201
    assert quantile(taken, 0.5) < 0.15
    follower = next(port for port in three.ports if port != three.settle())
    assert three.client(follower).transfer(three.id(follower)) == f"127.0.0.1:{follower}"
    with pytest.raises(CommandRefused):
        three.client(follower).transfer("127.0.0.1-1")


def test_a_leader_that_is_told_to_stop_hands_over_first(three: RealMembers) -> None:
    leader = three.settle()
    others = [port for port in three.ports if port != leader]
    three.processes[leader].terminate()
    assert wait_for(lambda: bool(set(three.leaders()) & set(others)), 30, three.logs) < 2.0
    assert three.processes[leader].wait(10) == 0
    assert three.view(leader) is None


def test_a_member_that_could_not_lead_hands_over_to_one_that_could(three: RealMembers) -> None:
    leader = three.settle()
    able = next(port for port in three.ports if port != leader)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.2):
            three.client(able).announce(True)

    daemon = threading.Thread(target=beat)
    daemon.start()
    try:
        wait_for(lambda: three.leaders() == [able], 30, three.logs)
        assert holds_for(1.5, lambda: set(three.leaders()) <= {able})
        three.client(leader).announce(True)
        stop.set()
        daemon.join()
        three.client(able).close()  # its daemon died
        assert wait_for(lambda: three.leaders() == [leader], 30, three.logs) < 2.0
    finally:
        stop.set()
        daemon.join()


@pytest.mark.long
def test_idle_connections_between_followers_live(three: RealMembers) -> None:
    leader = three.settle()
    others = [port for port in three.ports if port != leader]
    before = three.log(others[0])
    assert holds_for(6.0, lambda: set(three.leaders()) <= {leader})
    for port in others:
        assert all(row["reachable"] for row in three.client(port).status()["members"])
    assert three.log(others[0]) == before


def test_a_member_joins_with_an_empty_disk_and_another_one_leaves(tmp_path: Path) -> None:
    with RealMembers(tmp_path, 3, spare=1) as members:
        members.start()
        leader = members.settle()
        new = members.ports[3]
        members.start(new)
        members.client(leader).submit(service("before"))
        address = f"127.0.0.1:{new + 1}"
        members.client(leader).add_member(members.id(new), address)
        members.client(leader).add_member(members.id(new), address)
        wait_for(lambda: "before" in _services(members, new), 30, members.logs)
        members.client(new).remove_member(members.id(leader))  # the leader: it hands over first
        left = [port for port in members.ports if port != leader]
        assert members.leader(30.0, left) in left
        members.stop(leader)
        for port in left:  # their configurations still name the old one
            members.stop(port)
        members.start(*left)
        members.settle()
        for port in left:
            rows = members.client(port).status()["members"]
            assert {row["id"] for row in rows} == {members.id(other) for other in left}


def _services(members: RealMembers, port: int) -> dict[str, Any]:
    with contextlib.suppress(ConsensusUnavailable):
        return dict(members.client(port).status()["state"]["services"])
    return {}


def test_a_damaged_journal_is_set_aside_and_the_member_catches_up(three: RealMembers) -> None:
    leader = three.settle()
    three.client(leader).submit(service("kept"))
    victim = next(port for port in three.ports if port != leader)
    wait_for(lambda: "kept" in _services(three, victim), 30)
    three.stop(victim)
    path = three.files(victim) / "journal"
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    three.start(victim)
    wait_for(lambda: "kept" in _services(three, victim), 30, three.logs)
    assert not three.client(victim).status()["fresh"]
    assert list(three.files(victim).glob("journal.damaged-*"))
    assert "damaged" in three.log(victim)


def test_without_a_secret_nothing_is_opened(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    (tmp_path / "config.json").write_text(
        json.dumps({"instances": [{"port": port}, {"port": port + 10}], "raft_port_offset": 1, "state_dir": "."})
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")}
    environment |= {"OMNI_CONFIG": str(tmp_path / "config.json"), "OMNI_NODE": f"127.0.0.1-{port}"}
    ended = subprocess.run(
        [sys.executable, "-m", "consensus.raft"], env=environment, cwd=PROJECT, capture_output=True, timeout=30
    )
    assert ended.returncode == 2
    assert b"cluster secret" in ended.stderr


def test_a_taken_port_ends_the_process_with_a_message(tmp_path: Path) -> None:
    with RealMembers(tmp_path, 2) as members, socket.socket() as taken:
        taken.bind(("127.0.0.1", members.ports[0] + 1))
        taken.listen()
        members.start(members.ports[0])
        assert members.processes[members.ports[0]].wait(20) == 1
        assert "in use" in members.log(members.ports[0])


def test_strangers_at_the_port_disturb_nobody(three: RealMembers) -> None:
    """Raw bytes, half a handshake, 30 MB of anything, 300 idle connections, and no descriptors left."""
    leader = three.settle()
    term = three.client(leader).status()["term"]
    where = ("127.0.0.1", leader + 1)
    slowest = 0.0
    resource.prlimit(three.processes[leader].pid, resource.RLIMIT_NOFILE, (64, 64))
    idle = [socket.create_connection(where) for _ in range(300)]
    for payload in (
        os.urandom(100_000),
        b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 20,
        b"\x7f\xff\xff\xff" + b"x" * 30_000_000,
    ):
        with contextlib.suppress(OSError), socket.create_connection(where, timeout=5) as stranger:
            stranger.sendall(payload)
        begun = time.perf_counter()
        three.client(leader).submit(service("meanwhile"))
        slowest = max(slowest, time.perf_counter() - begun)
    follower = next(port for port in three.ports if port != leader)
    three.kill(follower)
    three.start(follower)
    three.settle()
    for connection in idle:
        connection.close()
    status = three.client(leader).status()
    assert (status["role"], status["term"]) == ("leader", term)
    assert slowest < 0.5
