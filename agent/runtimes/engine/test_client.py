"""Calls to an engine that are long hold up only their like."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.runtimes.engine.client import Engine


def test_who_is_asked_after_waits_behind_none_that_is_started(monkeypatch: pytest.MonkeyPatch):
    engine = Engine("unix:///nowhere")
    monkeypatch.setattr(engine, "_client", lambda _timeout: None)
    go_on = threading.Event()

    async def story() -> None:
        started = [asyncio.create_task(engine.call(lambda _: go_on.wait(60), lane="change")) for _ in range(40)]
        commands = [asyncio.create_task(engine.call(lambda _: go_on.wait(60), lane="command")) for _ in range(40)]
        await asyncio.sleep(0)
        assert await engine.call(lambda _: "runs") == "runs"
        assert not any(one.done() for one in (*started, *commands))
        go_on.set()
        assert all(await asyncio.gather(*started, *commands))

    asyncio.run(story())
    engine.close()
