"""A canary is stopped by evidence and by nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.routing import LATENCY_BUCKETS_MS
from apps.strategy import Strategy
from instances.plan.model import Compared, Figures
from instances.rollout.judgement import FEWEST_REQUESTS, judge, lower_bound

STRATEGY = Strategy(type="canary")


def figures(requests: int, failed: int = 0, bucket: int = 5) -> Figures:
    histogram = [0] * (len(LATENCY_BUCKETS_MS) + 1)
    histogram[bucket] = requests
    return Figures(requests, failed, tuple(histogram))


def code(new: Figures, old: Figures, strategy: Strategy = STRATEGY) -> str | None:
    verdict = judge(Compared(new, old), strategy)
    return verdict.code if verdict else None


def test_the_old_releases_own_errors_are_no_fault_of_the_canary():
    assert code(figures(200, 20), figures(2000, 200)) is None
    assert code(figures(200, 40), figures(2000, 20)) == "canary_errors"


def test_a_few_requests_say_nothing_and_one_error_is_chance():
    assert code(figures(FEWEST_REQUESTS - 1, FEWEST_REQUESTS - 1), figures(100)) is None
    assert code(figures(50, 1), figures(100)) is None
    assert code(figures(10, 10), figures(0)) == "canary_errors"


def test_nobody_asking_is_nothing_against_it():
    assert code(figures(0), figures(0)) is None


def test_slower_than_the_old_release_in_the_same_time():
    assert code(figures(100, bucket=14), figures(100, bucket=9)) == "canary_slow"
    assert code(figures(100, bucket=2), figures(100, bucket=0)) is None, "three times as slow, but a few ms"
    assert code(figures(40, bucket=14), figures(100, bucket=9)) is None
    unjudged = Strategy(type="canary", max_latency_factor=None)
    assert code(figures(100, bucket=14), figures(100, bucket=9), unjudged) is None


@given(st.integers(1, 10_000), st.data())
def test_the_lower_bound_is_below_the_share_and_rises_with_it(of, data):
    hits = data.draw(st.integers(0, of))
    assert 0 <= lower_bound(hits, of) <= hits / of + 1e-9
    if hits < of:
        assert lower_bound(hits, of) <= lower_bound(hits + 1, of)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 21))
def test_the_same_on_both_sides_is_never_stopped(requests, failed, bucket):
    same = figures(requests, min(failed, requests), bucket)
    assert code(same, same) is None
