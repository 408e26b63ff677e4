from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent.runtimes.engine.client import Away, Declined
from agent.runtimes.engine.looking import Looking


class CountingEngine:
    """Answers with how often it was asked, or with what it is told to raise."""

    def __init__(self, labels: dict[str, str] | None = None, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._labels, self._error = labels, error

    async def call(self, function: Callable[[Any], Any]) -> Any:
        return function(self)

    def inspect_container(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        if self._error is not None:
            raise self._error
        return {"Id": f"{name} {len(self.asked)}", "Config": {"Labels": self._labels}}


def looking(engine: CountingEngine) -> Looking:
    return Looking(engine)  # type: ignore[arg-type]


def test_who_asks_at_the_same_time_shares_an_answer_and_who_asks_later_gets_a_later_one():
    engine = CountingEngine()
    asking = looking(engine)

    async def story() -> None:
        together = await asyncio.gather(asking.at("a"), asking.at("b"), asking.at("a"), asking.at("a"))
        assert [found["Id"] for found in together] == ["a 1", "b 2", "a 1", "a 1"]
        assert (await asking.at("a"))["Id"] == "a 3"

    asyncio.run(story())
    assert engine.asked == ["a", "b", "a"]


def test_one_that_gives_up_takes_nobodys_answer_away():
    asking = looking(CountingEngine())

    async def story() -> None:
        hasty, patient = asyncio.create_task(asking.at("a")), asyncio.create_task(asking.at("a"))
        await asyncio.sleep(0)
        hasty.cancel()
        assert (await patient)["Id"] == "a 1"
        with pytest.raises(asyncio.CancelledError):
            await hasty

    asyncio.run(story())


def test_every_one_who_asked_hears_that_there_is_no_answer():
    asking = looking(CountingEngine(error=Away("gone")))

    async def story() -> list[Any]:
        return await asyncio.gather(asking.at("a"), asking.at("a"), return_exceptions=True)

    assert [str(error) for error in asyncio.run(story())] == ["gone", "gone"]


@pytest.mark.parametrize(
    ("labels", "found"),
    [({"omni.platform": "p", "omni.node": "n", "more": ""}, True), ({"omni.platform": "other"}, False), (None, False)],
)
def test_a_container_of_our_name_is_ours_only_with_our_labels(labels: dict[str, str] | None, found: bool):
    asking = looking(CountingEngine(labels))
    answer = asyncio.run(asking.find("p-1", ["omni.platform=p", "omni.node=n"]))
    assert (answer is not None) == found


def test_a_container_that_is_not_there_is_none_and_another_refusal_is_told():
    assert asyncio.run(looking(CountingEngine(error=Declined(404, "no such"))).find("p-1", [])) is None
    with pytest.raises(Declined, match="broken"):
        asyncio.run(looking(CountingEngine(error=Declined(500, "broken"))).find("p-1", []))
