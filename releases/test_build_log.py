from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from releases import build_log
from releases.models import BuildLogLine

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]
BUILD = 7


def lines_of(*texts: str) -> list[tuple[int, int, str]]:
    return [(1_700_000_000_000_000 + i, i % 2, text) for i, text in enumerate(texts)]


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [line["line"] for line in found]


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    build_log._kept.clear()


def test_lines_come_back_in_order_with_stream_and_attempt() -> None:
    assert build_log.append(BUILD, 1, 0, lines_of("a", "b", "c")) == 2
    found = build_log.forward(BUILD, 0, 10)
    assert texts(found) == ["a", "b", "c"]
    assert [line["stream"] for line in found] == ["stdout", "stderr", "stdout"]
    assert {line["attempt"] for line in found} == {1}
    assert texts(build_log.forward(BUILD, found[1]["seq"], 10)) == ["c"]
    assert texts(build_log.backward(BUILD, None, 2)) == ["b", "c"]
    assert texts(build_log.backward(BUILD, found[1]["seq"], 5)) == ["a"]


def test_a_repeated_batch_changes_nothing_and_an_overlapping_one_adds_its_end() -> None:
    build_log.append(BUILD, 1, 0, lines_of("a", "b"))
    assert build_log.append(BUILD, 1, 0, lines_of("a", "b")) == 1
    assert build_log.append(BUILD, 1, 1, lines_of("b", "c")) == 2
    build_log._kept.clear()  # another process
    assert build_log.append(BUILD, 1, 0, lines_of("a", "b", "c")) == 2
    assert texts(build_log.forward(BUILD, 0, 10)) == ["a", "b", "c"]


def test_the_next_attempt_follows_after_the_first_and_its_note() -> None:
    build_log.append(BUILD, 1, 0, lines_of("a"))
    build_log.note(BUILD, 1, "lost")
    assert build_log.append(BUILD, 2, 0, lines_of("b")) == 0
    assert texts(build_log.forward(BUILD, 0, 10)) == ["a", "lost", "b"]
    assert [line["attempt"] for line in build_log.forward(BUILD, 0, 10)] == [1, 1, 2]


def test_a_long_line_is_cut() -> None:
    build_log.append(BUILD, 1, 0, lines_of("x" * (build_log.LINE_MAX + 5)))
    assert len(BuildLogLine.objects.get().line) == build_log.LINE_MAX + 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    limit = 20_000
    limits = settings.CONFIG.limits.model_copy(update={"build_log_bytes": limit})
    monkeypatch.setattr(settings, "CONFIG", _With(settings.CONFIG, limits))
    return limit


class _With:
    """The configuration with other limits."""

    def __init__(self, config: Any, limits: Any) -> None:
        self._config, self.limits = config, limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


def test_of_a_long_log_both_ends_are_kept_and_the_gap_is_told(small: int) -> None:
    every = [f"line {i:05d} " + "x" * 80 for i in range(1000)]
    for start in range(0, len(every), 50):
        build_log.append(BUILD, 1, start, lines_of(*every[start : start + 50]))
        if start == 500:
            build_log._kept.clear()  # another process goes on from the rows
    found = build_log.forward(BUILD, 0, 5000)
    shown = texts(found)
    assert sum(len(text) for text in shown) < small
    (gap,) = [i for i, line in enumerate(found) if line.get("gap")]
    assert shown[:gap] == every[:gap]
    assert shown[gap + 1 :] == every[-(len(shown) - gap - 1) :]
    missing = 1000 - (len(shown) - 1)
    assert f"{missing} lines" in shown[gap]
    assert min(gap, len(shown) - gap) > 40
    # a page that begins at the gap tells it too, and only once
    before = found[gap - 1]["seq"]
    assert texts(build_log.forward(BUILD, before, 5000)) == shown[gap:]
    assert texts(build_log.forward(BUILD, found[gap]["seq"], 5000)) == shown[gap + 1 :]


class AnyBatching(TestCase):
    databases = ("default", "telemetry")

    @given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.data())
    @hypothesis_settings(max_examples=25, deadline=None)
    def test_however_batches_are_cut_and_repeated_each_line_is_there_once(self, sizes: list[int], data: Any) -> None:
        build_log._kept.clear()
        total = sum(sizes)
        every = lines_of(*(str(i) for i in range(total)))
        end = 0
        for size in sizes:
            start = data.draw(st.integers(0, end))
            end += size
            assert build_log.append(BUILD, 1, start, every[start:end]) == end - 1
        assert texts(build_log.forward(BUILD, 0, total + 1)) == [text for _, _, text in every]
