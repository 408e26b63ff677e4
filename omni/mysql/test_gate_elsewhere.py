"""A write that loses its database server before COMMIT is made again on the next one, once."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections

from consensus import gate
from consensus.gate import Transaction
from omni.kernel.context import system
from omni.kernel.errors import DatabaseUnavailable
from omni.testing.factories import make_org

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "telemetry"])
GONE = (2013, "Lost connection to server during query")


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the URL named several servers."""
    monkeypatch.setattr(
        type(connections[DEFAULT_DB_ALIAS]),
        "may_ask_elsewhere",
        lambda _self, error: error.args[:1] == (2013,),
        raising=False,
    )


def losing(times: int, made: list[int]) -> Any:
    def verb(tx: Transaction) -> str:
        made.append(1)
        org = make_org(f"org-{len(made)}")
        tx.record("org.created", "org", org.pk)
        if len(made) <= times:
            raise OperationalError(*GONE)
        return str(org.name)

    return verb


def run(verb: Any) -> str:
    result, _ = gate.run(verb, actor=system("test"), cause="test")
    return str(result)


@pytest.mark.usefixtures("fence", "several")
def test_the_whole_transaction_is_run_again_and_only_once_applied() -> None:
    from accounts.models import Org

    made: list[int] = []
    assert run(losing(1, made)) == "org-2"
    assert list(Org.objects.filter(name__startswith="org-").values_list("name", flat=True)) == ["org-2"]


@pytest.mark.usefixtures("fence", "several")
def test_a_second_loss_is_told() -> None:
    made: list[int] = []
    with pytest.raises(DatabaseUnavailable):
        run(losing(2, made))
    assert len(made) == 2


@pytest.mark.usefixtures("fence")
def test_with_one_server_there_is_nowhere_else_to_ask() -> None:
    made: list[int] = []
    with pytest.raises(DatabaseUnavailable):
        run(losing(1, made))
    assert len(made) == 1
