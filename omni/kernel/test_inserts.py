"""A row inserted by the statement that is composed once is the row that Django would have saved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.models import App, ConfigRevision, DesiredState
from consensus import gate
from omni.kernel import clock
from omni.kernel.inserts import insert, insert_all, new
from omni.testing.factories import make_app, make_org

pytestmark = pytest.mark.django_db(databases=["default", "telemetry"])

_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
_JSON = st.dictionaries(_TEXT, st.one_of(_TEXT, st.integers(-100, 100), st.booleans(), st.none()), max_size=3)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "description": _TEXT,
        "desired_state": st.sampled_from([*DesiredState, "running", "stopped"]),
        "desired_release": st.one_of(st.none(), st.integers(0, 1000)),
        "instances": st.integers(0, 100),
        "singleton": st.booleans(),
        "strategy": _JSON,
        "domains": st.lists(_TEXT, max_size=2),
        "labels": _JSON,
        "cpu": st.one_of(st.integers(0, 4), st.sampled_from([0.5, 0.25, 2.75])),
        "cpu_limit": st.one_of(st.none(), st.just(1.5)),
        "stop_timeout_s": st.sampled_from([0, 10, 10.0, 0.5]),
    },
)


def columns(row: Any) -> dict[str, Any]:
    kept = type(row).objects.get(pk=row.pk)
    return {
        field.attname: getattr(kept, field.attname)
        for field in kept._meta.local_concrete_fields
        if field.name not in ("id", "name", "hostname")
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(_FIELDS)
def test_an_inserted_row_equals_a_saved_one(fields: dict[str, Any]) -> None:
    org, now = make_org(), clock.now()
    ours, djangos = (
        App(org=org, name=name, hostname=f"{name}-{org.pk}", created_at=now, updated_at=now, **fields)
        for name in ("ours", "djangos")
    )
    with gate.maintenance("test"):
        insert(ours)
        djangos.save(force_insert=True)
    assert columns(ours) == columns(djangos)
    assert not ours._state.adding


def test_several_rows_in_one_statement() -> None:
    app = make_app(make_org())
    rows = [
        ConfigRevision(app=app, number=number, env=f"'{number}' 100%", memory_mb=number, cpu=0.5,
                       restart_policy="always", stop_timeout_s=1.0, created_at=clock.now())
        for number in (7, 8)
    ]  # fmt: skip
    with gate.maintenance("test"):
        insert_all(rows)
        insert_all([])
    kept = ConfigRevision.objects.filter(app=app, number__in=(7, 8)).order_by("number")
    assert [(row.memory_mb, row.env) for row in kept] == [(7, "'7' 100%"), (8, "'8' 100%")]


def test_a_new_row_is_what_the_model_makes_of_the_same_values() -> None:
    given = {"org_id": 1, "name": "shop", "created_at": clock.now(), "labels": {"a": "b"}}
    ours, djangos = new(App, **given), App(**given)
    names = [field.attname for field in App._meta.concrete_fields]
    assert [getattr(ours, name) for name in names] == [getattr(djangos, name) for name in names]
    assert ours._state.adding
    assert new(App).labels is not new(App).labels
    with pytest.raises(TypeError, match="nme"):
        new(App, nme="shop")
