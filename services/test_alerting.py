"""One alert for one trouble: grouped under what failed first, never two for one service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerting import Open, Resolve, Standing, Update, Watched, plan, root

NOW = 1_000.0


def service(id: int, name: str, state: str = "unhealthy", *, on: tuple[str, ...] = (), **more) -> Watched:
    return Watched(id, name, state, "critical", since=0.0, depends_on=on, **more)


def carried_out(actions, standing):
    """The alerts after the actions."""
    left = {alert.id: alert for alert in standing}
    for number, action in enumerate(actions, max(left, default=0) + 1):
        if isinstance(action, Open):
            left[number] = Standing(number, action.service_id, action.severity, action.detail, action.affected)
        elif isinstance(action, Update):
            old = left[action.alert_id]
            left[old.id] = Standing(old.id, old.service_id, action.severity, action.detail, action.affected)
        else:
            del left[action.alert_id]
    return list(left.values())


names = st.sampled_from("abcdefgh")


@st.composite
def worlds(draw):
    chosen = sorted(draw(st.sets(names, min_size=1)))
    made = []
    for number, name in enumerate(chosen):
        on = tuple(sorted(draw(st.sets(st.sampled_from(chosen), max_size=3)) - {name}))
        state = draw(st.sampled_from(["healthy", "unhealthy", "degraded", "unknown", "maintenance"]))
        made.append(service(number + 1, name, state, on=on, reason=draw(st.sampled_from(["warning", "minority"]))))
    return made


@pytest.mark.slow
@given(worlds(), worlds())
def test_after_any_change_each_trouble_has_one_alert_and_the_plan_is_done(before, after):
    standing = carried_out(plan(before, [], NOW, 0), [])
    standing = carried_out(plan(after, standing, NOW, 0), standing)
    assert plan(after, standing, NOW, 0) == []  # nothing is opened twice
    owners = [alert.service_id for alert in standing]
    assert len(owners) == len(set(owners))
    by_name = {one.name: one for one in after}
    ids = {one.id: one for one in after}
    for one in after:
        if one.trouble:
            top = root(one.name, by_name)
            (alert,) = [a for a in standing if a.service_id == by_name[top].id]
            assert top == one.name or one.name in alert.affected
    for alert in standing:
        owner = ids[alert.service_id]
        assert owner.trouble or owner.state in ("unknown", "degraded")


@given(worlds())
def test_a_root_fails_because_of_nothing_else_or_stands_in_a_circle(world):
    by_name = {one.name: one for one in world}
    for one in world:
        if one.trouble:
            top = by_name[root(one.name, by_name)]
            failing_below = [d for d in top.depends_on if d in by_name and by_name[d].trouble == "failing"]
            assert not failing_below or root(top.name, by_name) == top.name


def test_a_dead_database_is_one_alert_not_forty():
    apps = [service(n, f"app-{n:02}", on=("database",)) for n in range(2, 42)]
    actions = plan([service(1, "database"), *apps], [], NOW, 10)
    assert actions == [Open(1, "critical", "", tuple(sorted(one.name for one in apps)))]


def test_an_alert_that_was_opened_first_joins_its_dependencys():
    standing = [Standing(5, 2, "critical", "")]
    actions = plan([service(1, "database"), service(2, "app", on=("database",))], standing, NOW, 10)
    assert actions == [Resolve(5, "grouped", 1), Open(1, "critical", "", ("app",))]


def test_a_dependent_waits_for_its_dependency_to_fail_first():
    database, app = service(1, "database", "healthy"), service(2, "app", on=("database",))
    early = Watched(2, "app", "unhealthy", "critical", since=NOW - 5, depends_on=("database",))
    assert plan([database, early], [], NOW, 10) == []
    assert plan([database, app], [], NOW, 10) == [Open(2, "critical", "", ())]


def test_what_is_still_broken_when_its_dependency_is_back_gets_its_own_alert():
    standing = [Standing(5, 1, "critical", "", ("app",))]
    actions = plan([service(1, "database", "healthy"), service(2, "app", on=("database",))], standing, NOW, 10)
    assert set(map(type, actions)) == {Resolve, Open}


def test_unknown_neither_opens_nor_resolves():
    assert plan([service(1, "a", "unknown")], [], NOW, 0) == []
    assert plan([service(1, "a", "unknown")], [Standing(5, 1, "critical", "")], NOW, 0) == []


def test_maintenance_and_deletion_resolve():
    assert plan([service(1, "a", "maintenance")], [Standing(5, 1, "critical", "")], NOW, 0) == [
        Resolve(5, "maintenance")
    ]
    assert plan([], [Standing(5, None, "critical", "")], NOW, 0) == [Resolve(5, "deleted")]


def test_a_minority_that_fails_is_no_alert_and_a_certificate_that_ends_soon_is_a_warning():
    assert plan([service(1, "a", "degraded", reason="minority")], [], NOW, 0) == []
    assert plan([service(1, "a", "degraded", reason="warning")], [], NOW, 0) == [Open(1, "warning", "", ())]


def test_flapping_keeps_one_alert_open():
    flapping = service(1, "a", "degraded", reason="flapping", flapping=True)
    assert plan([flapping], [Standing(5, 1, "critical", "")], NOW, 0) == []


def test_a_dependency_that_is_looked_at_later_still_speaks_for_what_died_with_it():
    """Ten seconds between two checks: what needs the database may be seen failing thirteen seconds before it."""
    timing = {"soonest_s": 20.0, "latest_s": 33.0}
    shop = Watched(1, "shop", "unhealthy", since=100.0, depends_on=("db",), **timing)
    well, dead = Watched(2, "db", "healthy", **timing), Watched(2, "db", "unhealthy", since=113.0, **timing)
    assert plan([shop, well], [], 115.0, 10.0) == []
    assert [action.service_id for action in plan([shop, dead], [], 116.0, 10.0)] == [2]
    assert [action.service_id for action in plan([shop, well], [], 116.0, 10.0)] == [1]
    seldom = Watched(2, "db", "healthy", soonest_s=0.0, latest_s=86_400.0)
    assert [action.service_id for action in plan([shop, seldom], [], 160.0, 10.0)] == [1]


def test_an_alert_stays_until_the_service_is_well_whatever_it_is_on_the_way():
    """From a certificate that warns to one that fails: for a moment only a minority has seen it."""
    alert = [Standing(7, 1, "warning", "x")]
    for state, reason in (("degraded", "minority"), ("degraded", "split"), ("unknown", "silent")):
        assert plan([Watched(1, "site", state, reason=reason)], alert, 50.0, 10.0) == []
    assert plan([Watched(1, "site", "healthy")], alert, 50.0, 10.0) == [Resolve(7, "recovered")]
