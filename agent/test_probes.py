"""What a health check brings home: whether, why not, and the answer itself."""

from __future__ import annotations

import asyncio
import os
import socket

from agent import probes, procfs
from agent.protocol import HealthCheck
from agent.runtimes.base import Executed

_HTTP = HealthCheck(type="http", path="/healthz", timeout_s=2)


async def _none(command: str, timeout_s: float) -> Executed:
    raise AssertionError("nothing is to be executed")


async def _served(raw: bytes) -> probes.Answer:
    """The answer to one question, from a server that says `raw`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        return await probes.ask(_HTTP, "127.0.0.1", server.sockets[0].getsockname()[1], _none)


def test_an_http_check_keeps_status_and_the_beginning_of_the_body():
    body = b'{"db": "down"}' + b"\x00\xff" + b"x" * 5000
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = asyncio.run(_served(head + body))
    assert (answer.ok, answer.status, answer.said) == (False, 503, "GET /healthz answered 503")
    assert answer.snippet.startswith('{"db": "down"}\ufffd\ufffdxxx')
    assert len(answer.snippet) == 300
    assert answer.reached


def test_a_refused_connection_reached_nobody():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        for kind in ("http", "tcp"):
            answer = asyncio.run(probes.ask(HealthCheck(type=kind, timeout_s=1), "127.0.0.1", port, _none))
            assert not answer.ok
            assert not answer.reached
            assert "refused" in answer.said.lower()


def test_an_exec_check_keeps_the_code_and_the_end_of_the_output():
    async def execute(command: str, timeout_s: float) -> Executed:
        return Executed(7, "one\ntwo\n")

    answer = asyncio.run(probes.ask(HealthCheck(type="exec", command="x"), "127.0.0.1", 1, execute))
    assert (answer.ok, answer.status, answer.snippet) == (False, 7, "one\ntwo\n")
    assert answer.said == "the command exited with code 7: two"


def test_the_ports_that_a_process_listens_on_are_found():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        found = procfs.listening([os.getpid()])
        assert server.getsockname()[1] in found
        assert bound.getsockname()[1] not in found
    assert procfs.listening([2**22 + 1]) == []
