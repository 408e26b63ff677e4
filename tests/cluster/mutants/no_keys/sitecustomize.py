"""Answers under an Idempotency-Key are forgotten: a repeat does it again."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.append(os.environ["OMNI_TEST_MUTANTS"])

from after_import import patch


def _change(writes: Any) -> None:
    writes._Key.stored = lambda self: None
    assert hasattr(writes._Key, "keep"), "the keeping of answers has changed: so must this"
    writes._Key.keep = lambda self, tx, reply: None


patch("omni.rest.writes", _change)
