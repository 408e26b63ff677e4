"""Two platforms on one host never give out the same users, unless their configurations insist."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from omni.kernel import config
from omni.kernel.config import Config
from omni.launch import proc, users
from sandbox.identity import ALL_SLOTS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives out users")


def load(folder: Path, **agent: int) -> Config:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"agent": agent}))
    loaded = config.load(folder / "config.json", {"OMNI_STATE": str(folder / "state")})
    loaded.state.mkdir(exist_ok=True)
    return loaded


def age(claims: Path, seconds: float) -> None:
    for path in claims.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_the_second_platform_gets_other_users_and_keeps_them(tmp_path: Path, claims: Path) -> None:
    first, second = load(tmp_path / "a"), load(tmp_path / "b")
    for _ in range(2):
        assert (users.claim(first), users.claim(second)) == ("", "")
        assert users.base_of(first) == 61_000
        assert users.base_of(second) >= users.base_of(first) + ALL_SLOTS
    age(claims, 1000)  # the host was started anew, and the second came first
    assert users.claim(second) == ""
    assert users.base_of(second) != users.base_of(first)


def test_the_users_of_a_platform_that_is_gone_are_free(tmp_path: Path, claims: Path) -> None:
    users.claim(load(tmp_path / "a"))
    age(claims, 1000)
    second = load(tmp_path / "b")
    assert users.claim(second) == ""
    assert users.base_of(second) == 61_000


def test_a_platform_that_runs_keeps_its_claim(tmp_path: Path, claims: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tmp_path / "a")
    users.claim(first)
    age(claims, 100_000)
    monkeypatch.setattr(proc, "marked", lambda state: ["a process"] if state == str(first.state) else [])
    second = load(tmp_path / "b")
    users.claim(second)
    assert users.base_of(second) == 400_000


def test_users_that_the_configuration_names_are_kept_and_a_clash_is_told(tmp_path: Path) -> None:
    first, second = load(tmp_path / "a", uid_base=70_000), load(tmp_path / "b", uid_base=75_000)
    assert users.claim(first) == ""
    said = users.claim(second)
    assert "agent.uid_base = 75000" in said
    assert str(first.state) in said
    assert users.base_of(second) == 75_000
    assert users.claim(first) == ""
