"""The port under attack, without a cluster around it: what reaches the Raft thread, and what does not."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.identity import make
from consensus.raft import door, links
from consensus.raft.links import Links
from consensus.raft.messages import FRAME_MAX, Message, encode
from consensus.raft.real_members import free_ports, wait_for
from consensus.tls import Identity, client_context

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

SECRET = "s" * 40
PING: Message = {"type": "ping", "able": True, "version": "1", "term": 1, "applied": 1, "fresh": False}


class Poller:
    """PySyncObj's, as far as it is used."""

    def __init__(self) -> None:
        self._poll, self._callbacks = select.poll(), {}

    def subscribe(self, fd: int, callback: Callable[[int, int], None], mask: int) -> None:
        wanted = (select.POLLIN if mask & 1 else 0) | (select.POLLOUT if mask & 2 else 0)
        self._callbacks[fd] = callback
        self._poll.register(fd, wanted | (select.POLLERR if mask & 4 else 0))

    def unsubscribe(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)

    def poll(self, seconds: float) -> None:
        for fd, event in self._poll.poll(seconds * 1000):
            mask = (1 if event & select.POLLIN else 0) | (2 if event & select.POLLOUT else 0)
            self._callbacks[fd](fd, mask | (4 if event & (select.POLLERR | select.POLLHUP) else 0))


class Member:
    """Links with a loop of their own, and what they heard."""

    def __init__(self, id: str, port: int, peers: dict[str, str]) -> None:
        self.identity = make(SECRET, id)
        self.heard: list[tuple[str, Message]] = []
        self.up: list[str] = []
        self.down: list[str] = []
        self.slowest = 0.0
        self.links = Links(self.identity, ("127.0.0.1", port), lambda: dict(PING))
        self.links.listen(lambda peer, message: self.heard.append((peer, message)), self.up.append, self.down.append)
        self.poller = Poller()
        for peer, address in peers.items():
            self.links.add(peer, address)
        self.links.start(self.poller)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.perf_counter()
            self.poller.poll(0.01)
            self.links.look_after(time.monotonic())
            self.slowest = max(self.slowest, time.perf_counter() - begun)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.links.close()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def member(port: int) -> Iterator[Member]:
    """Knows `b-1`, which dials it."""
    found = Member("a-1", port, {"b-1": "127.0.0.1:1"})
    yield found
    found.close()


def dial(port: int, identity: Identity) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=5)
    return client_context(identity).wrap_socket(raw)


def framed(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def closed_by_the_other_side(connection: socket.socket) -> bool:
    connection.settimeout(10)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(65536):
            pass
    return True


def test_members_find_each_other_and_talk(member: Member, port: int) -> None:
    other = Member("b-1", free_ports(3)[2], {"a-1": f"127.0.0.1:{port}"})
    wait_for(lambda: member.up == ["b-1"] and other.up == ["a-1"], 10)
    big = {
        "type": "append_entries",
        "term": 1,
        "commit_index": 1,
        "at": 1,
        "serialized": (os.urandom(65536), True, False),
    }
    for _ in range(50):
        other.links.send("a-1", big)
    wait_for(lambda: sum(message == big for _, message in member.heard) == 50, 10)
    other.close()
    wait_for(lambda: member.down == ["b-1"], 10)


def test_a_restarted_peer_is_back_within_a_second(member: Member, port: int) -> None:
    other_port = free_ports(3)[2]
    for count in (1, 2, 3):
        other = Member("b-1", other_port, {"a-1": f"127.0.0.1:{port}"})
        wait_for(lambda count=count: len(member.up) == count, 5)
        other.close()
        wait_for(lambda count=count: len(member.down) == count, 5)


def test_a_dialling_member_tries_again_until_somebody_answers(port: int) -> None:
    early = Member("b-1", free_ports(3)[2], {"a-1": f"127.0.0.1:{port}"})
    late = Member("a-1", port, {"b-1": "127.0.0.1:1"})
    wait_for(lambda: late.up == ["b-1"], 10)
    early.close()
    late.close()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x95",
        pickle.dumps({"type": "ping"}),
        b"not msgpack at all",
        encode({"type": "strange"}),
        encode({**PING, "able": 1}),
    ],
)
def test_what_is_no_message_closes_the_connection_of_a_member_too(member: Member, port: int, content: bytes) -> None:
    connection = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1"], 5)
    connection.sendall(framed(content))
    assert closed_by_the_other_side(connection)
    wait_for(lambda: member.down == ["b-1"], 5)
    assert member.heard == []


class Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self._path),))


def test_a_pickle_bomb_is_never_opened(member: Member, port: int, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "made"))
    connection = dial(port, make(SECRET, "b-1"))
    connection.sendall(framed(encode({"type": "apply_command", "command": b"\x00" + bomb})))
    wait_for(lambda: len(member.heard) == 1, 5)  # bytes, as every command: JSON or nothing for whoever applies it
    connection.sendall(framed(bomb))
    assert closed_by_the_other_side(connection)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(bomb)
        closed_by_the_other_side(stranger)
    assert not (tmp_path / "made").exists()


def test_a_frame_beyond_the_cap_is_refused_at_its_first_bytes(member: Member, port: int) -> None:
    for length in (FRAME_MAX + 1, 2**31, 2**32 - 1):
        connection = dial(port, make(SECRET, "b-1"))
        connection.sendall(struct.pack(">I", length) + b"x" * 1000)
        assert closed_by_the_other_side(connection)
    connection = dial(port, make(SECRET, "b-1"))
    with contextlib.suppress(OSError):
        connection.sendall(struct.pack(">I", 30 << 20) + b"x" * (30 << 20))
    assert closed_by_the_other_side(connection)
    assert member.slowest < 0.5


def test_strangers_and_other_clusters_get_nowhere(member: Member, port: int) -> None:
    for stranger in (make("t" * 40, "b-1"), make("t" * 40, "a-1")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            dial(port, stranger).sendall(framed(encode(PING)))
    assert (member.heard, member.up) == ([], [])


def test_members_that_are_not_known_are_let_in_and_bounded(member: Member, port: int) -> None:
    visitors = [dial(port, make(SECRET, f"v-{number}")) for number in range(links.VISITORS_MAX + 4)]
    wait_for(lambda: len(member.up) == links.VISITORS_MAX, 5)
    assert closed_by_the_other_side(visitors[-1])
    assert len(member.up) == links.VISITORS_MAX


def test_the_lesser_one_dials_where_the_greater_one_does_not_know_it(port: int) -> None:
    unknowing = Member("b-1", port, {})
    leader = Member("a-1", free_ports(3)[2], {"b-1": f"127.0.0.1:{port}"})
    wait_for(lambda: unknowing.up == ["a-1"] and leader.up == ["b-1"], 10)
    unknowing.close()
    leader.close()


def test_bytes_that_were_recorded_say_nothing_when_replayed(member: Member, port: int) -> None:
    """A man in the middle records what b-1 sends, byte for byte, and sends it again."""
    recorded = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as middle:
        passing = threading.Thread(target=_pass_through, args=(middle, port, recorded), daemon=True)
        passing.start()
        connection = dial(middle.getsockname()[1], make(SECRET, "b-1"))
        connection.sendall(framed(encode({"type": "higher_term", "term": 77})))
        wait_for(lambda: ("b-1", {"type": "higher_term", "term": 77}) in member.heard, 5)
        connection.close()
        passing.join(5)
    heard = len(member.heard)
    for _ in range(5):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as again:
            again.sendall(recorded)
            again.settimeout(5)
            closed_by_the_other_side(again)
    assert len(recorded) > 500
    assert len(member.heard) == heard


def _pass_through(middle: socket.socket, port: int, recorded: bytearray) -> None:
    client, _ = middle.accept()
    server = socket.create_connection(("127.0.0.1", port))
    ends = {client: server, server: client}
    with client, server, contextlib.suppress(ConnectionError):
        while True:
            for readable in select.select(list(ends), [], [])[0]:
                data = readable.recv(65536)
                if not data:
                    return
                if readable is client:
                    recorded += data
                ends[readable].sendall(data)


def test_idle_connections_of_strangers_are_bounded_and_keep_no_member_out(member: Member, port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    connection = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1"], 5)
    assert len(member.links._door._waiting) <= door.UNPROVEN_MAX  # type: ignore[union-attr]
    connection.close()
    for stranger in idle:
        stranger.close()


def test_half_a_handshake_is_given_up_after_a_while(member: Member, port: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(door, "HANDSHAKE_S", 0.2)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"\x16\x03\x01\x02\x00")
        assert closed_by_the_other_side(stranger)


def test_a_silent_member_is_given_up(member: Member, port: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(links, "SILENCE_S", 0.3)
    connection = dial(port, make(SECRET, "b-1"))
    assert closed_by_the_other_side(connection)
    wait_for(lambda: member.down == ["b-1"], 5)


def test_a_member_that_reads_nothing_is_given_up(member: Member, port: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(links, "_UNSENT_MAX", 1 << 20)
    connection = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1"], 5)
    chunk = {"type": "append_entries", "term": 1, "commit_index": 1, "at": 1, "serialized": (b"x" * 65536, True, False)}
    for _ in range(400):
        member.links.send("b-1", chunk)
    wait_for(lambda: member.down == ["b-1"], 5)
    connection.close()


def test_a_newer_connection_takes_the_place_of_an_older_one(member: Member, port: int) -> None:
    first = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1"], 5)
    second = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1", "b-1"], 5)
    assert member.down == ["b-1"]
    assert closed_by_the_other_side(first)
    second.sendall(framed(encode(PING)))
    wait_for(lambda: member.heard[-1:] == [("b-1", PING)], 5)


def test_a_removed_member_is_told_so(member: Member, port: int) -> None:
    connection = dial(port, make(SECRET, "b-1"))
    wait_for(lambda: member.up == ["b-1"], 5)
    member.links.drop("b-1")
    connection.settimeout(5)
    received = b""
    while data := connection.recv(65536):
        received += data
    assert b"no member" in received
