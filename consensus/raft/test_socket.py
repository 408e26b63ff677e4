"""The unix socket: requests, replies, bounds, and the difference between *no* and *nobody knows*."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.lease import ConsensusUnavailable
from consensus.raft import server
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient
from consensus.raft.real_members import wait_for
from consensus.raft.server import Reply, SocketServer, done, failed
from consensus.raft.test_links import Poller


class Process:
    """A socket server with a loop of its own; `answer` decides what is said."""

    def __init__(self, path: str) -> None:
        self.answer: Callable[[dict[str, Any], Reply], None] = lambda request, reply: reply(done(request))
        self.gone: list[object] = []
        self.poller = Poller()
        self.server = SocketServer(path, self.poller, lambda *both: self.answer(*both), self.gone.append)  # noqa: PLW0108
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.poller.poll(0.01)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "raft.sock")


@pytest.fixture
def process(path: str) -> Iterator[Process]:
    found = Process(path)
    yield found
    found.close()


@pytest.fixture
def client(path: str) -> Iterator[RaftClient]:
    found = RaftClient(path)
    yield found
    found.close()


def test_a_request_gets_its_own_reply(process: Process, client: RaftClient) -> None:
    for number in range(20):
        assert client.submit({"op": "x", "n": number})["command"] == {"op": "x", "n": number}


def test_only_the_owner_may_speak_to_it(process: Process, path: str) -> None:
    assert Path(path).stat().st_mode & 0o777 == 0o600


def test_where_nobody_listens_nothing_happened(client: RaftClient) -> None:
    with pytest.raises(ConsensusUnavailable, match="not running"):
        client.submit({"op": "x"})


@pytest.mark.parametrize(
    ("code", "kind"),
    [("unavailable", ConsensusUnavailable), ("unknown", CommandUnknown), ("no_member", CommandRefused)],
)
def test_each_failure_is_its_own_exception(process: Process, client: RaftClient, code: str, kind: Any) -> None:
    process.answer = lambda _request, reply: reply(failed(code, "why"))
    with pytest.raises(kind, match="why"):
        client.submit({"op": "x"})


def test_a_command_whose_answer_never_came_is_unknown_and_a_question_is_not(
    process: Process, client: RaftClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consensus.raft.client._MARGIN_S", 0.05)
    process.answer = lambda _request, _reply: None
    with pytest.raises(CommandUnknown):
        client.submit({"op": "x"}, timeout_s=0.05)
    with pytest.raises(ConsensusUnavailable):
        client.status(timeout_s=0.05)


def test_a_late_answer_is_not_taken_for_the_next_ones(
    process: Process, client: RaftClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consensus.raft.client._MARGIN_S", 0.05)
    late: list[Reply] = []
    process.answer = lambda _request, reply: late.append(reply)
    with pytest.raises(CommandUnknown):
        client.submit({"op": "first"}, timeout_s=0.05)
    process.answer = lambda request, reply: (late[0](done({"op": "first"})), reply(done(request)))[1]
    assert client.submit({"op": "second"}, timeout_s=5)["command"] == {"op": "second"}


def test_a_process_that_started_again_is_found_again(path: str, client: RaftClient) -> None:
    for _ in range(2):
        process = Process(path)
        assert client.status() is not None
        process.close()


def test_a_client_that_leaves_is_told_of(process: Process, client: RaftClient) -> None:
    seen: list[object] = []

    def answer(_request: dict[str, Any], reply: Reply) -> None:
        seen.append(reply.client)
        reply(done({}))

    process.answer = answer
    client.announce(True)
    client.close()
    wait_for(lambda: process.gone == seen[:1], 5)


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b"[" * 100_000 + b"\n", b"x" * (server.LINE_MAX + 70_000)])
def test_what_is_no_request_closes_the_connection(process: Process, path: str, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(path)
        try:
            stranger.sendall(line)
            assert stranger.recv(100) == b""
        except ConnectionError:
            pass


def test_clients_are_bounded(process: Process, path: str, client: RaftClient) -> None:
    client.status()
    crowd = []
    for _ in range(server.CLIENTS_MAX + 5):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(path)  # blocking: waits for room in the queue
        stranger.settimeout(5)
        crowd.append(stranger)
    assert crowd[-1].recv(10) == b""
    assert client.status() is not None
    for stranger in crowd:
        stranger.close()


def test_a_long_answer_arrives_whole(process: Process, client: RaftClient) -> None:
    big = {"text": "x" * 3_000_000}
    process.answer = lambda _request, reply: reply(done(big))
    assert client.status(10.0) == big
    assert len(json.dumps(big)) > 65536
