"""A member without a web server says that it cannot lead; one that is slow does not."""

from __future__ import annotations

import socket

import pytest

from omni.daemon.own_web import OwnWeb


def test_a_web_server_that_is_gone_is_noticed_at_the_second_look_and_its_return_at_the_first() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    web = OwnWeb("127.0.0.1", port)
    assert not web.listens, "not before it was seen"
    with socket.create_server(("127.0.0.1", port)):
        web.look()
        assert web.listens
    web.look()
    assert web.listens
    web.look()
    assert not web.listens


@pytest.mark.slow
def test_a_server_that_does_not_get_round_to_accept_is_there() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        web = OwnWeb(*where)
        web.look()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(where)
        web.look()
        web.look()
        assert web.listens
        for one in waiting:
            one.close()
