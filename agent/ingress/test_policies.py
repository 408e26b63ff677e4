"""A canary's share is what was asked for; limits let through what they say; only policies can cause a reload."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.ingress.caddy_config import Layout, build
from agent.ingress.limits import TokenBuckets
from agent.ingress.policies import HostPolicy, policies_of, share_pattern
from agent.routing import HostRoute, Target

LAYOUT = Layout("127.0.0.1", 8080, 5353, 4444, Path("admin"), Path("access.log"), Path("caddy.log"))


@given(st.integers(0, 100))
def test_a_share_is_exact_to_one_step_of_4096(percent: int) -> None:
    pattern = re.compile(share_pattern(percent))
    matched = sum(1 for number in range(4096) if pattern.match(f"{number:03x}a1b2c3"))
    assert matched == round(percent * 4096 / 100)


def test_members_that_come_and_go_change_no_configuration() -> None:
    route = HostRoute("a.localhost", 1, False, [Target(1, "127.0.0.1", 1000)], 10, True, 5.0, 10, 3)
    more = replace(route, targets=[*route.targets, Target(2, "127.0.0.1", 1001, "canary")], requests_per_second=7.0)
    assert policies_of([route]) == policies_of([more]) == (HostPolicy("a.localhost", 10, True, True, 3),)


def test_hosts_that_want_nothing_are_not_in_the_configuration() -> None:
    routes = [HostRoute(f"{i}.localhost", i, False, [Target(i, "127.0.0.1", i)]) for i in range(1, 500)]
    assert policies_of(routes) == ()
    assert policies_of([replace(routes[0], canary_percent=5, maintenance=True)]) == ()
    assert build(LAYOUT, policies_of(routes)) == build(LAYOUT)


@given(st.floats(0.1, 500), st.integers(0, 100), st.lists(st.floats(0, 0.5), max_size=300))
def test_no_more_pass_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    route = HostRoute("a.localhost", 1, requests_per_second=rate, burst=burst)
    buckets, now, passed = TokenBuckets(), 100.0, 0
    for pause in pauses:
        now += pause
        passed += buckets.take(route, now) == 0
    room = max(burst, -(-rate // 1), 1)
    assert passed <= room + rate * sum(pauses) + 1e-6


@given(st.floats(0.1, 100))
def test_after_the_told_wait_one_more_passes(rate: float) -> None:
    route, buckets, now = HostRoute("a.localhost", 1, requests_per_second=rate), TokenBuckets(), 0.0
    while (wait := buckets.take(route, now)) == 0:
        pass
    assert buckets.take(route, now + wait) == 0


def test_a_host_without_a_limit_is_never_held() -> None:
    buckets, route = TokenBuckets(), HostRoute("a.localhost", 1)
    assert not any(buckets.take(route, 0.0) for _ in range(10_000))
