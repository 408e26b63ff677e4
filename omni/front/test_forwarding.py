"""Forwarding to leaders that answer, hang, break off and are deposed; each is a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from consensus.fake import FakeLease
from omni.front.forwarding import LOST, Forwarder, Times, settled
from omni.front.hop import Hop
from omni.front.leaders import Leaders
from omni.front.requests import Answer
from omni.front.test_front import request
from omni.kernel.errors import NoLeader, OmniError, OutcomeUnknown, TooLarge

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

ME = "127.0.0.1:1"
NOT_LEADER = b'{"code":"no_leader"}'


@dataclass
class Leader:
    """A leader that does with each request what `play` says; `heads` and `bodies` are what came."""

    play: Callable[[Leader, asyncio.StreamWriter], Awaitable[None]]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    netloc: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(_length(head)))
                await self.play(self, writer)
                if writer.is_closing():
                    return


def _length(head: bytes) -> int:
    found = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].split(b":")[1]) if found else 0


def saying(status: int = 201, body: bytes = b"made", **headers: str) -> Callable[..., Awaitable[None]]:
    async def play(_leader: Leader, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *lines, "", ""])
        writer.write(head.encode() + body)
        await writer.drain()

    return play


async def hanging(_leader: Leader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def breaking(_leader: Leader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@contextlib.asynccontextmanager
async def running(*leaders: Leader) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for leader in leaders:
            server = await asyncio.start_server(leader.serve, "127.0.0.1", 0)
            leader.netloc = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            stack.callback(server.close)
        yield


def forwarder(lease: FakeLease, wait_s: float = 0.3, timeout_s: float = 20.0) -> Forwarder:
    times = Times(wait_s, timeout_s, 5.0)
    return Forwarder(Leaders(lease, ME), Hop(b"k", "a-1"), times, lambda netloc: f"http://{netloc}")


def tell(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(story(), 15)

    return asyncio.run(bounded())


async def told(call: Awaitable[Answer | None]) -> tuple[Answer | OmniError | None, float]:
    """What came of it, and after how many seconds."""
    begun = time.monotonic()
    try:
        return await call, time.monotonic() - begun
    except OmniError as error:
        return error, time.monotonic() - begun


def test_the_leaders_answer_is_relayed(lease: FakeLease) -> None:
    leader = Leader(saying(omni_index="7"))

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            sent = request(
                "POST", "/app/create", "dry_run=true", authorization="Bearer t", prefer="wait=30", host="h:1"
            )
            answer = await forwarder(lease).forward(sent, b"{}")
        assert answer is not None
        assert (answer.status, answer.body, answer.header("Omni-Index")) == (201, b"made", "7")
        head = leader.heads[0].lower()
        assert head.startswith(b"post /app/create?dry_run=true http/1.1\r\n")
        for wanted in (b"authorization: bearer t", b"host: h:1", b"omni-forwarded: ", b"content-length: 2"):
            assert wanted in head
        assert b"prefer" not in head, "the member that the client asked does the waiting"
        assert leader.bodies == [b"{}"]

    tell(story)


def test_bytes_of_a_header_and_of_a_path_arrive_as_they_came(lease: FakeLease) -> None:
    leader = Leader(saying(204, b""))

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            await forwarder(lease).forward(request("POST", "/app/a?b#c d", "q=%E9", user_agent="caf\xe9"), b"")
        assert leader.heads[0].startswith(b"POST /app/a%3Fb%23c%20d?q=%E9 HTTP/1.1\r\n")
        assert b"user-agent: caf\xe9\r\n" in leader.heads[0].lower()

    tell(story)


def test_a_member_that_turns_out_to_lead_answers_itself(lease: FakeLease) -> None:
    assert tell(lambda: forwarder(lease).forward(request("POST"), b"x")) is None


def test_without_a_leader_a_write_waits_and_then_says_that_nothing_happened(lease: FakeLease) -> None:
    lease.lose(None)
    said, after = tell(lambda: told(forwarder(lease, wait_s=0.3).forward(request("POST"), b"x")))
    assert isinstance(said, NoLeader)
    assert (said.outcome, said.retry_after_s is not None) == ("not-applied", True)
    assert 0.25 < after < 2


class Counting(Forwarder):
    tries = 0

    async def _send(self, *arguments: Any) -> Answer:
        self.tries += 1
        return await super()._send(*arguments)


def test_a_leader_that_cannot_be_reached_is_no_leader_and_is_not_hammered(lease: FakeLease) -> None:
    leader = Leader(breaking)

    async def story() -> None:
        async with running(leader):
            gone = leader.netloc
        lease.lose(gone)
        made = Counting(Leaders(lease, ME), Hop(b"k", "a-1"), Times(0.6, 20.0, 5.0), lambda netloc: f"http://{netloc}")
        results = await asyncio.gather(*(told(made.forward(request("POST"), b"x")) for _ in range(50)))
        assert all(isinstance(said, NoLeader) for said, _ in results)
        assert made.tries < 50 * 4, "each waits for its turn instead of trying every few milliseconds"

    tell(story)


def test_a_leader_that_comes_meanwhile_gets_the_write(lease: FakeLease) -> None:
    leader = Leader(saying())

    async def story() -> Answer | None:
        async with running(leader):
            lease.lose(None)
            asyncio.get_running_loop().call_later(0.2, lease.lose, leader.netloc)
            return await forwarder(lease, wait_s=3).forward(request("POST"), b"x")

    assert tell(story).status == 201


@pytest.mark.parametrize("keyed", [True, False])
def test_a_broken_connection_is_unknown_unless_a_key_makes_repeating_safe(lease: FakeLease, keyed: bool) -> None:
    async def once(leader: Leader, writer: asyncio.StreamWriter) -> None:
        await (breaking if len(leader.heads) == 1 else saying(200, b"ok"))(leader, writer)

    leader = Leader(once)

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            sent = request("POST", idempotency_key="k") if keyed else request("POST")
            said, _ = await told(forwarder(lease, wait_s=2).forward(sent, b"x"))
        if keyed:
            assert isinstance(said, Answer)
            assert (said.body, len(leader.heads)) == (b"ok", 2)
        else:
            assert isinstance(said, OutcomeUnknown)
            assert len(leader.heads) == 1

    tell(story)


def test_a_leader_that_always_breaks_off_is_not_asked_for_ever(lease: FakeLease) -> None:
    leader = Leader(breaking)

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            said, _ = await told(forwarder(lease, wait_s=5).forward(request("POST", idempotency_key="k"), b"x"))
        assert isinstance(said, OutcomeUnknown)
        assert len(leader.heads) == 3

    tell(story)


def test_after_a_lost_try_no_later_refusal_says_that_nothing_happened(lease: FakeLease) -> None:
    async def once(leader: Leader, writer: asyncio.StreamWriter) -> None:
        refusing = saying(503, b'{"code":"database_unavailable"}', omni_outcome="not-applied")
        await (breaking if len(leader.heads) == 1 else refusing)(leader, writer)

    leader = Leader(once)

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            said, _ = await told(forwarder(lease, wait_s=2).forward(request("POST", idempotency_key="k"), b"x"))
        assert isinstance(said, OutcomeUnknown)
        assert len(leader.heads) == 2

    tell(story)


def test_after_a_lost_try_nobody_to_ask_again_leaves_it_unknown(lease: FakeLease) -> None:
    async def last_words(leader: Leader, writer: asyncio.StreamWriter) -> None:
        lease.lose(None)
        await breaking(leader, writer)

    leader = Leader(last_words)

    async def story() -> None:
        async with running(leader):
            lease.lose(leader.netloc)
            said, _ = await told(forwarder(lease).forward(request("POST", idempotency_key="k"), b"x"))
        assert isinstance(said, OutcomeUnknown)

    tell(story)


def test_after_a_lost_try_our_own_refusal_does_not_settle_it_either() -> None:
    lost = request("POST", idempotency_key="k")
    lost.extra[LOST] = True
    with pytest.raises(OutcomeUnknown):
        settled(lost, Answer(503, [("Omni-Outcome", "not-applied")]))
    assert settled(lost, Answer(409, [])).status == 409, "the key's answer was looked for first"
    assert settled(request("POST"), Answer(503, [])).status == 503


@pytest.mark.parametrize("keyed", [True, False])
def test_a_frozen_leader_is_given_up_as_soon_as_another_one_leads(lease: FakeLease, keyed: bool) -> None:
    frozen, next_one = Leader(hanging), Leader(saying(200, b"ok"))

    async def story() -> None:
        async with running(frozen, next_one):
            lease.lose(frozen.netloc)
            asyncio.get_running_loop().call_later(0.5, lease.lose, next_one.netloc)
            sent = request("POST", idempotency_key="k") if keyed else request("POST")
            said, after = await told(forwarder(lease, timeout_s=30).forward(sent, b"x"))
        assert after < 3, "and not at the time-out"
        if keyed:
            assert isinstance(said, Answer)
            assert (said.body, next_one.bodies) == (b"ok", [b"x"])
        else:
            assert isinstance(said, OutcomeUnknown)
            assert next_one.heads == []

    tell(story)


def test_a_keyed_write_of_a_frozen_leader_is_ours_when_we_take_over(lease: FakeLease) -> None:
    frozen = Leader(hanging)

    async def story() -> Answer | None:
        async with running(frozen):
            lease.lose(frozen.netloc)
            asyncio.get_running_loop().call_later(0.3, lambda: lease.hold(2))
            return await forwarder(lease).forward(request("POST", idempotency_key="k"), b"x")

    assert tell(story) is None


def test_a_leader_that_handed_over_may_still_answer(lease: FakeLease) -> None:
    async def slowly(leader: Leader, writer: asyncio.StreamWriter) -> None:
        lease.lose("127.0.0.1:9")
        await asyncio.sleep(0.1)
        await saying(200, b"late")(leader, writer)

    leader = Leader(slowly)

    async def story() -> Answer | None:
        async with running(leader):
            lease.lose(leader.netloc)
            return await forwarder(lease).forward(request("POST"), b"x")

    assert tell(story).body == b"late"


def test_a_page_that_says_nothing_for_a_moment_deposes_nobody(lease: FakeLease) -> None:
    async def slowly(leader: Leader, writer: asyncio.StreamWriter) -> None:
        lease.lose(None)
        await asyncio.sleep(0.6)
        await saying(200, b"late")(leader, writer)

    leader = Leader(slowly)

    async def story() -> Answer | None:
        async with running(leader):
            lease.lose(leader.netloc)
            return await forwarder(lease).forward(request("POST"), b"x")

    assert tell(story).body == b"late"


def test_a_deposed_leaders_refusal_is_followed_to_the_next_one(lease: FakeLease) -> None:
    next_one = Leader(saying(200, b"ok"))

    async def refusing(leader: Leader, writer: asyncio.StreamWriter) -> None:
        lease.lose(next_one.netloc)
        await saying(503, NOT_LEADER, omni_outcome="not-applied")(leader, writer)

    deposed = Leader(refusing)

    async def story() -> Answer | None:
        async with running(deposed, next_one):
            lease.lose(deposed.netloc)
            return await forwarder(lease, wait_s=3).forward(request("POST"), b"x")

    assert tell(story).body == b"ok"


def test_a_database_that_is_away_is_no_reason_to_ask_again(lease: FakeLease) -> None:
    leader = Leader(saying(503, b'{"code":"database_unavailable"}', omni_outcome="not-applied"))

    async def story() -> Answer | None:
        async with running(leader):
            lease.lose(leader.netloc)
            return await forwarder(lease, wait_s=3).forward(request("POST"), b"x")

    assert tell(story).status == 503
    assert len(leader.heads) == 1


def test_connections_to_a_former_leader_are_not_used_again(lease: FakeLease) -> None:
    first, second = Leader(saying()), Leader(saying())

    async def story() -> None:
        async with running(first, second):
            made = forwarder(lease)
            for leader in (first, first, second, first):
                lease.lose(leader.netloc)
                await made.forward(request("POST"), b"x")
            await made.close()
        assert first.connections == 2, "two writes shared a connection, the third came after another leader"

    tell(story)


def test_a_large_answer_is_streamed(lease: FakeLease) -> None:
    leader = Leader(saying(200, b"y" * (3 << 20)))

    async def story() -> bytes:
        async with running(leader):
            lease.lose(leader.netloc)
            answer = await forwarder(lease).forward(request("POST"), b"x")
            assert answer is not None
            assert answer.stream is not None
            return b"".join([chunk async for chunk in answer.stream])

    assert len(tell(story)) == 3 << 20


def test_a_body_that_is_too_large_is_refused() -> None:
    from omni.front.forwarding import buffered

    with pytest.raises(TooLarge):
        asyncio.run(buffered(request("POST", body=[b"x" * 50] * 3), 100, 1.0))
