"""When the leader's loops run: after writes, at their pace, and by themselves now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from omni.daemon import loops, pulse
from omni.daemon.loops import Loop
from omni.daemon.pulse import Pulse
from omni.kernel import clock

WITHIN_S = 10.0


class Ticks:
    """Counts, and says when there were so many."""

    def __init__(self, during: Callable[[int], float | None] = lambda _count: None) -> None:
        self.at: list[float] = []
        self._during, self._changed = during, threading.Condition()

    def __call__(self) -> float | None:
        with self._changed:
            self.at.append(clock.monotonic())
            self._changed.notify_all()
        return self._during(len(self.at))

    def reach(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.at) >= count, WITHIN_S), f"{len(self.at)} of {count} ticks"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The write index, as a test sets it."""
    value = [1]
    monkeypatch.setattr(pulse.fence, "write_index", lambda: value[0])
    return value


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Loop]]:
    monkeypatch.setattr(loops, "close_old_connections", lambda: None)
    found: list[Loop] = []
    yield found
    for loop in found:
        loop.stop()
    for loop in found:
        loop.join(WITHIN_S)


def test_a_write_wakes_a_loop_long_before_its_rest_is_over(
    index: list[int], running: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "REST_S", 3600.0)
    beat, ticks = Pulse(), Ticks()
    running.append(Loop("x", ticks, 0.01, beat))
    running[0].start(1)
    ticks.reach(1)
    beat.look()  # the first reading is news too
    ticks.reach(2)
    index[0] += 1
    beat.look()
    ticks.reach(3)


def test_a_write_during_a_tick_is_for_the_next_one(
    index: list[int], running: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "REST_S", 3600.0)
    beat = Pulse()

    def write(count: int) -> None:
        if count == 1:
            beat.look()

    ticks = Ticks(write)
    running.append(Loop("x", ticks, 0.01, beat))
    running[0].start(1)
    ticks.reach(2)


def test_the_same_index_wakes_nobody(index: list[int]) -> None:
    beat, wake = Pulse(), threading.Event()
    beat.tell(wake)
    beat.look()
    wake.clear()
    beat.look()
    assert not wake.is_set()


def test_many_writes_are_answered_at_the_pace_of_the_loop(index: list[int], running: list[Loop]) -> None:
    beat, pace_s = Pulse(), 0.05
    ticks = Ticks()
    running.append(Loop("x", ticks, pace_s, beat))
    running[0].start(1)
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.002):
            index[0] += 1
            beat.look()

    writer = threading.Thread(target=write)
    writer.start()
    ticks.reach(6)
    done.set()
    writer.join()
    gaps = [later - sooner for sooner, later in zip(ticks.at, ticks.at[1:], strict=False)]
    assert min(gaps) >= pace_s * 0.99


def test_a_loop_comes_round_by_itself_when_nothing_tells_it(
    running: list[Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "REST_S", 0.05)
    ticks = Ticks()
    running.append(Loop("x", ticks, 0.01, Pulse()))
    running[0].start(1)
    ticks.reach(3)


def test_what_a_loop_has_left_over_waits_for_no_pace(index: list[int], running: list[Loop]) -> None:
    ticks = Ticks(lambda count: 0.0 if count < 4 else None)
    running.append(Loop("x", ticks, 3600.0, Pulse()))
    running[0].start(1)
    ticks.reach(4)


def test_a_tick_that_fails_is_repeated(running: list[Loop], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_AFTER_ERROR_S", 0.01)
    monkeypatch.setattr(loops.connections, "close_all", lambda: None)

    def fail(count: int) -> None:
        if count == 1:
            raise RuntimeError("once")

    ticks = Ticks(fail)
    running.append(Loop("x", ticks, 0.01))
    running[0].start(1)
    ticks.reach(2)
