"""The prober tells ports that take connections from ports that do not."""

from __future__ import annotations

import asyncio
import socket

from agent.ingress.probe import Prober
from agent.ingress.testbed.bed import free_port
from agent.routing import Target


def test_a_refusing_port_is_found_and_a_returning_one_taken_back() -> None:
    port, changes = free_port(), []
    prober = Prober(list)
    prober.on_change(lambda: changes.append(1))
    endpoint = ("127.0.0.1", port)
    target, other = Target(1, *endpoint), Target(2, "127.0.0.1", 1)

    asyncio.run(prober.sweep({endpoint}))
    assert prober.answering([target, other]) == [other]
    assert prober.answering([target]) == [target]
    with socket.create_server(endpoint):
        asyncio.run(prober.sweep({endpoint}))
        assert prober.answering([target, other]) == [target, other]
        told = len(changes)
        asyncio.run(prober.sweep({endpoint}))
        assert len(changes) == told, "no news, no call"


def test_a_host_name_is_resolved_by_the_first_probe() -> None:
    prober = Prober(list)
    assert prober.ip_of("localhost") is None
    asyncio.run(prober.sweep({("localhost", 1)}))
    ip = prober.ip_of("localhost")
    assert ip is not None
    assert ip.is_loopback
