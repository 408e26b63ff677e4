"""The pure parts of pages: the map, a deployment's steps, differences of releases, words, the configuration form."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import QueryDict

from omni.kernel.errors import InvalidInput
from omni.pages import config, plans, topology, words
from omni.pages.differences import Side, differences
from omni.pages.spark import WINDOW_S, line
from omni.pages.stages import stages


def member(name: str, role: str = "follower", **fields: Any) -> dict[str, Any]:
    return {"id": name, "address": name, "role": role, "reachable": True, "match_lag": 0, "able": True, **fields}


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("led", [True, False])
def test_members_stand_apart_and_on_the_map(count: int, led: bool) -> None:
    members = [member(f"n{number}", "leader" if led and number == 0 else "follower") for number in range(count)]
    found = topology.places(members, "n0")
    assert len({(one.x, one.y) for one in found}) == count
    assert all(78 <= one.x <= topology.WIDTH - 78 for one in found)
    assert all(27 <= one.y <= topology.height(count) - 27 for one in found)
    assert [one.id for one in found if one.here] == ["n0"]


def test_the_map_says_who_is_cut_off_and_who_lags() -> None:
    found = topology.places([member("a", "leader"), member("b", reachable=False), member("c", match_lag=90)], "a")
    assert [(one.tone, one.note) for one in found] == [
        ("ok", "leads"), ("bad", "not reachable"), ("warn", "90 entries behind")
    ]  # fmt: skip


def deployment(status: str, phase: str | None, kind: str = "rolling", **times: str) -> dict[str, Any]:
    return {"status": status, "phase": phase, "strategy": {"type": kind}, **times}


def test_a_rollout_is_at_one_step() -> None:
    assert [one.state for one in stages(deployment("rolling", "rolling"))] == ["done", "now", "todo"]
    canary = stages(deployment("rolling", "awaiting_promotion", "canary", baking_since="x"))
    assert [one.state for one in canary] == ["done", "done", "now", "todo", "todo"]
    held = stages(deployment("rolling", "paused", "blue_green", baking_since="x"))
    assert [one.label for one in held if one.state == "now"] == ["New set is judged"]


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "reverting", "reverted"])
@pytest.mark.parametrize("kind", ["rolling", "recreate", "canary", "blue_green"])
def test_what_is_over_has_no_step_to_come(status: str, kind: str) -> None:
    found = stages(deployment(status, "reverting" if status == "reverting" else None, kind))
    assert found
    assert status == "reverting" or not {one.state for one in found} & {"now", "todo"}


def side(**fields: Any) -> Side:
    return Side(**{"package": "a" * 64, "processes": {"web": "run"}, "fields": {"memory_mb": 128}, "env": {},
                   "secrets": frozenset(), **fields})  # fmt: skip


def test_differences_name_code_settings_and_variables() -> None:
    found = differences(side(env={"A": "1"}), side(package="b" * 64, fields={"memory_mb": 256}, env={"B": "2"}))
    assert [(one.what, one.name) for one in found] == [
        ("code", "package digest"), ("setting", "memory_mb"), ("environment", "A"), ("environment", "B")
    ]  # fmt: skip
    assert differences(side(), side()) == []


def test_a_secret_that_differs_is_told_without_its_value() -> None:
    hidden = frozenset({"KEY"})
    found = differences(side(env={"KEY": "old-one"}, secrets=hidden), side(env={"KEY": "new-one"}, secrets=hidden))
    assert [(one.before, one.after) for one in found] == [("secret", "another secret")]
    opened = differences(side(env={"KEY": "same"}, secrets=hidden), side(env={"KEY": "same"}))
    assert len(opened) == 1
    assert "same" not in str(opened)


def test_words() -> None:
    assert words.size(None) == words.NOTHING
    assert [words.size(value) for value in (0, 999, 1024, 1536, 150 << 20)] == [
        "0 B", "999 B", "1.0 KiB", "1.5 KiB", "150 MiB"
    ]  # fmt: skip
    assert [words.span(value) for value in (0, 59, 61, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [words.figure(value, "%") for value in (None, 0, 0.057, 3.14, 250)] == [
        words.NOTHING, "0 %", "0.057 %", "3.1 %", "250 %"
    ]  # fmt: skip


def test_a_line_stays_in_its_box() -> None:
    end = 10_000_000_000
    points = [(end - WINDOW_S * 1_000_000, 0.0), (end, 400.0)]
    assert line(points, end) == "0.0,20.0 90.0,2.0"


def form(**fields: str) -> QueryDict:
    found = QueryDict(mutable=True)
    found.update(fields)
    return found


def row(number: int, key: str, value: str, *, was: str | None = None, before: str = "", secret: bool = False,
        hidden: bool = False, gone: bool = False) -> dict[str, str]:  # fmt: skip
    fields = {f"env_key_{number}": key, f"env_value_{number}": value, f"env_was_{number}": key if was is None else was,
              f"env_before_{number}": before}  # fmt: skip
    for name, on in (("secret", secret), ("hidden", hidden), ("gone", gone)):
        if on:
            fields[f"env_{name}_{number}"] = "1"
    return fields


def test_the_form_sends_what_was_changed_in_it_and_nothing_else() -> None:
    given = form(
        **row(0, "SAME", "1", before="1"),
        **row(1, "NEW", "2", was=""),
        **row(2, "KEY", "", secret=True, hidden=True),
        **row(3, "OLD", "3", before="3", gone=True),
        **row(4, "", "", was=""),
        memory_mb="256", was_memory_mb="128", cpu="0.5", was_cpu="0.5", cpu_limit="", was_cpu_limit="2.0",
    )  # fmt: skip
    patch = config.body(given)
    assert patch == {"env": {"NEW": "2", "OLD": None}, "memory_mb": 256, "cpu_limit": None}
    assert ("memory_mb", "128", "256") in config.changes(patch, given)


def test_a_secret_is_kept_replaced_or_named_anew_but_never_shown() -> None:
    replaced = form(**row(0, "KEY", "s3cret", secret=True, hidden=True))
    patch = config.body(replaced)
    assert patch == {"env": {"KEY": {"value": "s3cret", "secret": True}}}
    assert "s3cret" not in str(config.changes(patch, replaced))
    with pytest.raises(InvalidInput):
        config.body(form(**row(0, "KEY", "", hidden=True)))
    with pytest.raises(InvalidInput):
        config.body(form(**row(0, "OTHER", "", was="KEY", secret=True, hidden=True)))


def test_a_form_without_a_change_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Nothing was changed"):
        config.body(form(**row(0, "SAME", "1", before="1")))


def test_a_plan_is_told_in_sentences() -> None:
    plan = {
        "actions": [
            {"action": "place", "slot": 2, "version": "5", "node": "n1", "why": "wanted"},
            {"action": "stop", "slot": 0, "node": "n2", "why": "old"},
            {"action": "await_promotion", "why": "by hand"},
        ],
        "settles": False,
        "pending": [{"slot": 3, "reason": "no room", "remedy": [{"text": "free 64 MB."}]}],
    }
    told = plans.told({"plan": plan})
    assert [step.text for step in told.steps] == [
        "Slot 2 of version 5 starts on n1", "Slot 0 stops on n2", "Waits until somebody promotes it"
    ]  # fmt: skip
    assert (told.starts, told.stops, told.settles) == (1, 1, False)
    assert told.open == ("slot 3 finds no node: no room (free 64 MB)",)
