"""If-Match is not looked at: a client overwrites what it has not seen."""

from __future__ import annotations

import os
import sys
from typing import Any

sys.path.append(os.environ["OMNI_TEST_MUTANTS"])

from after_import import patch


def _change(writes: Any) -> None:
    writes.check_revision = lambda actual, expected: None


patch("omni.rest.writes", _change)
