"""A probe answers within its bound whatever the thing that it asks does."""

from __future__ import annotations

import threading
import time

from omni.kernel.probes import Probe, ask_all


def _failed(why: str) -> str:
    return f"failed: {why}"


def test_what_hangs_is_said_to_within_the_bound_and_is_not_asked_twice() -> None:
    asked, release = [], threading.Event()

    def hang() -> str:
        asked.append(1)
        release.wait(10)
        return "late"

    probe = Probe(hang, _failed)
    begun = time.monotonic()
    assert probe.ask(bound_s=0.1) == "failed: no answer within 0.1 s"
    assert probe.ask(bound_s=0.1) == "failed: no answer within 0.1 s"
    assert time.monotonic() - begun < 0.5, "the second one need not wait again"
    assert asked == [1]
    release.set()
    while probe.answer(5.0) != "late":
        time.sleep(0.001)
    assert asked == [1]


def test_an_answer_is_kept_while_it_is_fresh() -> None:
    numbers = iter(range(10))
    probe = Probe(lambda: str(next(numbers)), _failed)
    assert probe.ask(fresh_s=60) == "0"
    assert probe.ask(fresh_s=60) == "0"
    assert probe.ask(fresh_s=0) == "1"


def test_a_question_that_raises_is_an_answer() -> None:
    def fail() -> str:
        raise ConnectionRefusedError

    assert Probe(fail, _failed).ask() == "failed: ConnectionRefusedError"


def test_all_are_asked_at_once() -> None:
    slow = threading.Event()
    probes = {str(number): Probe(lambda: str(slow.wait(0.2)), _failed) for number in range(5)}
    begun = time.monotonic()
    ask_all(probes)
    assert time.monotonic() - begun < 0.8
