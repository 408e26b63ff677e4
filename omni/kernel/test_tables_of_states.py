"""Every state machine of the platform is a sound table."""

from __future__ import annotations

import pytest

from instances.exec.states import SESSION
from instances.states import DEPLOYMENT, INSTANCE, NODE
from instances.volumes.snapshots.states import RESTORE, SNAPSHOT
from omni.kernel.transitions import TransitionTable
from releases.states import BUILD
from services.states import ALERT, NOTICE, REMEDY

_TABLES = [BUILD, INSTANCE, DEPLOYMENT, NODE, SESSION, SNAPSHOT, RESTORE, ALERT, NOTICE, REMEDY]


@pytest.mark.parametrize("table", _TABLES, ids=lambda table: table.noun)
def test_nothing_moves_back_and_every_state_has_one_owner(table: TransitionTable) -> None:
    assert table.faults() == []


def test_the_faults_of_a_bad_table_are_named() -> None:
    table = TransitionTable(
        noun="thing",
        order=("a", "b", "c", "d"),
        initial="a",
        terminal=frozenset({"c"}),
        edges={("a", "b"): "x", ("b", "a"): "x", ("a", "c"): "y", ("c", "b"): "x"},
    )
    text = " ".join(table.faults())
    assert "b→a moves back" in text
    assert "c is terminal" in text
    assert "a has more than one owner" in text
    assert "d cannot be reached" in text
    assert "d is not terminal" in text
