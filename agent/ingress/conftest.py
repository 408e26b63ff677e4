"""A running ingress with a stand-in control plane, for the tests that need the real thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.ingress.testbed.bed import Bed
from agent.ingress.testbed.control import ControlPlane


@pytest.fixture
def control() -> Iterator[ControlPlane]:
    control = ControlPlane()
    yield control
    control.close()


@pytest.fixture
def bed(tmp_path: Path, control: ControlPlane) -> Iterator[Bed]:
    """An ingress that is configured but not started; whatever it starts is stopped afterwards."""
    bed = Bed(tmp_path, [control.url], window_s=1.0)
    yield bed
    bed.close()
