"""A row inserted by the statement that is composed once is the row that Django would have saved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.models import App, ConfigRevision, DesiredState
from consensus import gate
from omni.kernel import clock
from omni.kernel.inserts import insert, new
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
        {"org_id": org.pk, "name": name, "hostname": f"{name}-{org.pk}", "created_at": now, "updated_at": now, **fields}
        for name in ("ours", "djangos")
    )
    with gate.maintenance("test"):
        row = insert(App, **ours)
        saved = App.objects.create(**djangos)
    assert columns(row) == columns(saved)
    assert row.name == "ours"
    assert not row._state.adding


def test_what_no_model_has_is_refused_and_marks_stay_as_they_are() -> None:
    app = make_app(make_org())
    given = {"app_id": app.pk, "number": 7, "env": "'7' 100%;", "memory_mb": 7, "cpu": 0.5, "stop_timeout_s": 1.0}
    with gate.maintenance("test"):
        with pytest.raises(TypeError, match="nme"):
            insert(ConfigRevision, nme=1)
        row = insert(ConfigRevision, restart_policy="always", created_at=clock.now(), **given)
    assert ConfigRevision.objects.get(app=app, number=7).env == "'7' 100%;"
    assert ConfigRevision.objects.get(app=app, number=7).pk == row.pk


def test_a_new_row_is_what_the_model_makes_of_the_same_values() -> None:
    given = {"org_id": 1, "name": "shop", "created_at": clock.now(), "labels": {"a": "b"}}
    ours, djangos = new(App, **given), App(**given)
    names = [field.attname for field in App._meta.concrete_fields]
    assert [getattr(ours, name) for name in names] == [getattr(djangos, name) for name in names]
    assert ours._state.adding
    assert new(App).labels is not new(App).labels
    with pytest.raises(TypeError, match="nme"):
        new(App, nme="shop")
