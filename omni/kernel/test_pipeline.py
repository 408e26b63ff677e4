"""Several statements at once behave as the same statements one by one."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from accounts.models import Org
from consensus import gate
from consensus.write_guard import UngatedWrite
from omni.kernel import clock, pipeline
from omni.kernel.inserts import statement
from omni.kernel.pipeline import Result, Statement
from omni.testing.factories import make_org

pytestmark = pytest.mark.django_db(databases=["default", "telemetry"])


def new_org(name: str) -> Statement:
    return statement(Org, name=name, created_at=clock.now(), updated_at=clock.now())


def test_each_statement_has_its_own_result() -> None:
    org = make_org("here")
    with gate.maintenance("test"), transaction.atomic():
        found = pipeline.run(
            connection,
            [
                Statement("SELECT name FROM accounts_org WHERE id = %s", [org.pk]),
                new_org("new; with 'marks' and 100%"),
                Statement("UPDATE accounts_org SET description = %s WHERE name <> 'nobody'", ["both"]),
                Statement("SELECT name FROM accounts_org WHERE name = 'nobody'"),
            ],
        )
    assert [tuple(row) for row in found[0].rows] == [("here",)]
    assert found[2].count == 2
    assert list(found[3].rows) == []
    assert Org.objects.get(pk=found[1].key).name == "new; with 'marks' and 100%"


def test_a_check_is_heard_before_a_later_statement_fails() -> None:
    make_org("taken")
    seen: list[Result] = []

    def refuse(result: Result) -> None:
        seen.append(result)
        raise LookupError

    statements = [Statement("SELECT 1", check=refuse), new_org("taken")]
    with gate.maintenance("test"), transaction.atomic():
        with pytest.raises(LookupError), transaction.atomic():
            pipeline.run(connection, statements)
        assert len(seen) == 1
        with connection.cursor() as cursor:  # nothing of the series is left on the connection
            cursor.execute("SELECT 2")
            assert tuple(cursor.fetchone()) == (2,)


def test_an_error_ends_the_series() -> None:
    make_org("taken")
    statements = [new_org("first"), new_org("taken"), new_org("last")]
    with gate.maintenance("test"), pytest.raises(IntegrityError), transaction.atomic():
        pipeline.run(connection, statements)
    assert set(Org.objects.values_list("name", flat=True)) == {"taken"}


@pytest.mark.parametrize("before", ["SELECT 1", "UPDATE consensus_fence SET writer = 0"])
def test_the_write_guard_sees_every_statement(before: str) -> None:
    statements: list[Any] = [Statement(before), new_org("outside")]
    with pytest.raises(UngatedWrite), transaction.atomic():
        pipeline.run(connection, statements)
