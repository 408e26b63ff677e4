"""A write whose body is in memory goes where the leadership goes, while it is being made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consensus.fake import FakeLease
from omni.front.application import Front
from omni.front.forwarding import Forwarder, Times
from omni.front.hop import HEADER, Hop
from omni.front.leaders import Leaders
from omni.front.requests import Answer, Request
from omni.front.test_forwarding import ME, NOT_LEADER, Leader, running, saying, tell
from omni.front.test_front import request
from omni.kernel.errors import NoLeader, NotLeader

REFUSED = Answer(503, [("Omni-Outcome", "not-applied")], NOT_LEADER)


class Django:
    """Answers what it is told to, and does something meanwhile."""

    def __init__(self, *answers: Answer, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.answers, self.meanwhile, self.bodies = list(answers), meanwhile, list[bytes]()

    async def call(self, _request: Request, body: bytes = b"") -> Answer:
        self.bodies.append(body)
        self.meanwhile()
        return self.answers.pop(0)


def front(lease: FakeLease, django: Django, wait_s: float = 2.0) -> Any:
    from django.conf import settings

    made: Any = Front()
    made._config, made._django = settings.CONFIG, django
    made._leaders, made._hop = Leaders(lease, ME), Hop(b"k", "a-1")
    made._forwarder = Forwarder(made._leaders, made._hop, Times(wait_s, 5.0, 5.0), lambda netloc: f"http://{netloc}")
    return made


def write(**headers: str) -> Request:
    return request("POST", "/app/create", body=[b"{}"], **headers)


def test_what_the_fence_refused_here_is_asked_for_at_the_next_leader(lease: FakeLease) -> None:
    next_one = Leader(saying(201))

    async def story() -> Answer:
        async with running(next_one):
            deposed = Django(REFUSED, meanwhile=lambda: lease.lose(next_one.netloc))
            answer: Answer = await front(lease, deposed)._write(write(), forwarded=False)
            return answer

    assert tell(story).status == 201
    assert next_one.bodies == [b"{}"]


def test_a_refusal_while_nobody_knows_a_leader_ends_in_no_leader(lease: FakeLease) -> None:
    async def story() -> None:
        with pytest.raises(NoLeader):
            await front(lease, Django(REFUSED, meanwhile=lambda: lease.lose(None)), 0.3)._write(
                write(), forwarded=False
            )

    tell(story)


def test_a_member_that_is_refused_and_still_leads_tries_again_and_then_says_so(lease: FakeLease) -> None:
    """The page may be a moment behind the fence."""
    django = Django(*[REFUSED] * 50)
    answer = tell(lambda: front(lease, django, 0.3)._write(write(), forwarded=False))
    assert answer.status == 503
    assert 2 <= len(django.bodies) < 10


def test_a_write_that_waits_for_an_election_is_made_here_when_we_win(lease: FakeLease) -> None:
    lease.lose(None)

    async def story() -> Answer:
        asyncio.get_running_loop().call_later(0.2, lease.hold, 2)
        answer: Answer = await front(lease, Django(Answer(201, [])))._write(write(), forwarded=False)
        return answer

    assert tell(story).status == 201


def test_a_forwarded_write_is_never_forwarded_again(lease: FakeLease) -> None:
    elsewhere = Leader(saying(201))

    async def story() -> None:
        async with running(elsewhere):
            lease.lose(elsewhere.netloc)
            with pytest.raises(NotLeader):
                await front(lease, Django())._write(write(), forwarded=True)
        assert elsewhere.heads == []

    tell(story)


def test_a_forwarded_write_that_the_fence_refuses_goes_back_to_who_sent_it(lease: FakeLease) -> None:
    django = Django(REFUSED)
    assert tell(lambda: front(lease, django)._write(write(), forwarded=True)).status == 503
    assert len(django.bodies) == 1


@pytest.mark.parametrize("proven", [True, False])
def test_any_hop_is_the_last_one_but_only_a_proven_one_names_the_client(lease: FakeLease, proven: bool) -> None:
    made = front(lease, Django())
    sent = write()
    sent.client = "203.0.113.7"
    value = Hop(b"k" if proven else b"other", "b-2").sign(sent)
    received = write(**{HEADER: value, "x_forwarded_for": "198.51.100.1"})
    assert made._verify_hop(received) is True
    assert received.client == ("203.0.113.7" if proven else "10.0.0.9")
    assert HEADER not in received.headers
    assert "x-forwarded-for" not in received.headers


def start(door: Any) -> list[dict[str, Any]]:
    """What the server is told when the front starts with this door."""
    told: list[dict[str, Any]] = []
    made: Any = Front()
    made._ready, made._door = True, door

    async def story() -> None:
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> dict[str, Any]:
            if not messages:
                await asyncio.sleep(30)
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        task: asyncio.Task[Any] = asyncio.create_task(_await(made({"type": "lifespan"}, receive, send)))
        while not told:
            await asyncio.sleep(0.01)
        task.cancel()

    tell(story)
    return told


async def _await(call: Awaitable[Any]) -> Any:
    return await call


def test_a_member_without_its_port_for_other_hosts_does_not_start() -> None:
    class Taken:
        async def open(self) -> None:
            raise OSError("address already in use")

    assert start(Taken())[0]["type"] == "lifespan.startup.failed"
    assert start(None)[0]["type"] == "lifespan.startup.complete"
