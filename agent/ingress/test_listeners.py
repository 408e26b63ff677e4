"""The listening sockets by themselves: one side gets everything, nothing is reset, a successor can have them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.ingress.listeners import Listeners
from agent.ingress.testbed.bed import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux steers connections between sockets")


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def listeners(address: str) -> Iterator[Listeners]:
    made = Listeners.open([address])
    yield made
    made.close()


def connect(address: str, count: int) -> list[socket.socket]:
    host, _, port = address.partition(":")
    return [socket.create_connection((host, int(port)), 5) for _ in range(count)]


def waiting(listeners: Listeners, address: str) -> tuple[int, int]:
    """How many connections were accepted just now from each side."""
    counts = [0, 0]
    for side, sock in enumerate(listeners.sockets[address]):
        with contextlib.suppress(OSError):
            while True:
                sock.accept()[0].close()
                counts[side] += 1
    return counts[0], counts[1]


def test_all_new_connections_go_to_the_side_that_was_named(listeners: Listeners, address: str) -> None:
    assert listeners.steered
    found = []
    for side in (0, 1, 0, 1):
        listeners.listen(side)
        listeners.steer(side)
        made = connect(address, 20)
        found.append(waiting(listeners, address))
        for one in made:
            one.close()
    assert found == [(20, 0), (0, 20), (20, 0), (0, 20)]


def test_what_waited_at_the_other_side_is_still_there(listeners: Listeners, address: str) -> None:
    made = connect(address, 3)
    listeners.listen(1)
    listeners.steer(1)
    made += connect(address, 2)
    assert waiting(listeners, address) == (3, 2)
    for one in made:
        one.close()


def test_a_successor_takes_them_over_from_the_process_that_has_them(listeners: Listeners, address: str) -> None:
    listeners.listen(1)
    listeners.steer(1)
    child = subprocess.Popen(["sleep", "60"], pass_fds=listeners.inherited())
    try:
        numbers = listeners.numbers()
        assert listeners.held_by(child.pid, 0) == 1
        listeners.close()
        taken = Listeners.of(child.pid, numbers)
        assert taken is not None
        made = connect(address, 4)
        assert waiting(taken, address) == (0, 4)
        taken.steer(0)
        made += connect(address, 4)
        assert waiting(taken, address) == (4, 0)
        taken.end()
        with pytest.raises(OSError, match="refused"):  # although the child still has them open
            connect(address, 1)
        for one in made:
            one.close()
    finally:
        child.kill()
        child.wait()


def test_where_the_sockets_cannot_be_had_there_are_none(address: str) -> None:
    assert Listeners.of(os.getpid(), {address: [9990, 9991]}) is None
    assert Listeners.of(os.getpid(), {}) is None


def test_a_taken_address_is_refused_and_nothing_stays_open(address: str) -> None:
    free = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])), reuse_port=True):
        with pytest.raises(OSError, match="in use"):
            Listeners.open([free, address])
        with socket.create_server(("127.0.0.1", int(free.rpartition(":")[2]))):
            pass


def test_other_addresses_leave_those_that_stay_as_they_are(listeners: Listeners, address: str) -> None:
    more = f"127.0.0.1:{free_port()}"
    listeners.listen(1)
    listeners.steer(1)
    made = connect(address, 1)
    listeners.become([address, more], 1)
    made += connect(more, 2)
    assert (waiting(listeners, address), waiting(listeners, more)) == ((0, 1), (0, 2))
    listeners.become([address], 1)
    with pytest.raises(OSError, match="refused"):
        connect(more, 1)
    for one in made:
        one.close()
