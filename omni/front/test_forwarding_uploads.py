"""Forwarding what is streamed: what did not go out whole was not applied, what did may have been."""

from __future__ import annotations

import asyncio
from typing import Any

from consensus.fake import FakeLease
from omni.front.requests import Answer, Request
from omni.front.test_forwarding import Leader, breaking, forwarder, running, saying, tell, told
from omni.front.test_front import request
from omni.kernel.errors import NoLeader, OutcomeUnknown


def streaming(parts: list[bytes], length: int, *, pause_s: float = 0.0, **headers: str) -> Request:
    """An upload whose parts come one by one."""
    sent = request("POST", "/app/a/release/1/upload", content_length=str(length), **headers)
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    sent.receive = receive
    return sent


def test_an_upload_that_did_not_go_out_whole_was_not_applied(lease: FakeLease) -> None:
    async def story() -> None:
        async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

        server = await asyncio.start_server(early, "127.0.0.1", 0)
        lease.lose(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        upload = streaming([b"x" * 1000] * 20, 20_000, pause_s=0.02, idempotency_key="k")
        said, _ = await told(forwarder(lease).forward(upload, None))
        server.close()
        assert isinstance(said, NoLeader)
        assert said.outcome == "not-applied"

    tell(story)


def test_an_upload_that_went_out_whole_and_got_no_answer_is_unknown(lease: FakeLease) -> None:
    leader = Leader(breaking)

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            upload = streaming([b"x" * 1000] * 3, 3000, idempotency_key="k")
            said, _ = await told(forwarder(lease).forward(upload, None))
        assert isinstance(said, OutcomeUnknown)
        assert leader.bodies == [b"x" * 3000]

    tell(story)


def test_an_upload_waits_for_a_leader_before_its_first_byte(lease: FakeLease) -> None:
    gone, next_one = Leader(breaking), Leader(saying(202))

    async def story() -> Answer | None:
        async with running(next_one):
            async with running(gone):
                pass
            lease.lose(gone.netloc)
            asyncio.get_running_loop().call_later(0.3, lease.lose, next_one.netloc)
            upload = streaming([b"x" * 1000] * 3, 3000)
            return await forwarder(lease, wait_s=3).forward(upload, None)

    assert tell(story).status == 202
    assert next_one.bodies == [b"x" * 3000]
