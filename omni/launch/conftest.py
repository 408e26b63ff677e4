"""Claims of users of the tests' own: platforms on this machine have theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni.launch import users


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(users, "CLAIMS", tmp_path / "claims")
    return tmp_path / "claims"
