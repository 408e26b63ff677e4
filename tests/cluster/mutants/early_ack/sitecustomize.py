"""One write in ten is acknowledged and never committed."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.append(os.environ["OMNI_TEST_MUTANTS"])

from after_import import patch


def _change(gate: Any) -> None:
    import random

    seal = gate._seal

    def careless(tx: Any, connection: Any, held: Any) -> None:
        seal(tx, connection, held)
        if tx.actor.kind == "token" and random.random() < 0.1:
            connection.set_rollback(True)

    gate._seal = careless


patch("consensus.gate", _change)
