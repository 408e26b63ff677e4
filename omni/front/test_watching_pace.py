"""How often the write index is asked for while somebody waits for it to grow."""

from __future__ import annotations

import asyncio

import pytest

from omni.front import watching
from omni.front.watching import CALM_S, POLL_S, IndexWatch


def test_the_index_is_asked_for_less_often_when_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])

    async def never() -> int:
        return 0

    watch = IndexWatch(never)
    assert watch._pause(7) == POLL_S
    now[0] += watching.CALM_AFTER_S - 0.1
    assert watch._pause(7) == POLL_S
    now[0] += 0.2
    assert watch._pause(7) == CALM_S
    assert watch._pause(8) == POLL_S


def test_each_waiter_is_woken_by_the_index_that_it_waits_for() -> None:
    async def story() -> None:
        value = [5]

        async def read() -> int:
            return value[0]

        watch = IndexWatch(read)
        early = asyncio.create_task(watch.beyond(5, 10.0))
        late = asyncio.create_task(watch.beyond(6, 10.0))
        value[0] = 6
        assert await early is True
        assert not late.done()
        value[0] = 7
        assert await late is True
        assert not watch._waiters

    asyncio.run(asyncio.wait_for(story(), 10))


def test_whoever_waits_in_vain_is_told_so_at_the_time_out() -> None:
    async def read() -> int:
        return 1

    assert asyncio.run(IndexWatch(read).beyond(1, 0.01)) is False
    assert asyncio.run(IndexWatch(read).beyond(0, 0.0)) is False
