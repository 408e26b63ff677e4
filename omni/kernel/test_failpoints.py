"""Failpoints do nothing until a folder is named, then what the file says; production refuses them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni.kernel import config, failpoints


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    failpoints.arm(str(tmp_path))
    yield tmp_path
    failpoints.arm("")


def test_a_point_without_a_file_is_passed(folder: Path) -> None:
    failpoints.hit("before_fence")
    assert not (folder / "hits").exists()


def test_an_action_happens_once_and_is_noted(folder: Path) -> None:
    (folder / "before_fence").write_text("error")
    with pytest.raises(failpoints.Injected):
        failpoints.hit("before_fence")
    failpoints.hit("before_fence")
    assert (folder / "hits").read_text().split()[1:] == [str(os.getpid()), "before_fence", "error"]


def test_an_action_with_a_probability_stays(folder: Path) -> None:
    (folder / "before_fence").write_text("error 1.0")
    (folder / "fenced_before_commit").write_text("error 0.0")
    for _ in range(2):
        with pytest.raises(failpoints.Injected):
            failpoints.hit("before_fence")
        failpoints.hit("fenced_before_commit")


def test_a_name_that_nobody_knows_is_a_mistake(folder: Path) -> None:
    with pytest.raises(ValueError, match="no failpoint"):
        failpoints.hit("before_lunch")


def test_disarmed_nothing_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "before_fence").write_text("error")
    failpoints.hit("before_fence")
    failpoints.hit("before_lunch")


@pytest.mark.parametrize(("action", "ended_by"), [("kill", signal.SIGKILL), ("killnode", signal.SIGKILL)])
def test_a_process_dies_there(tmp_path: Path, action: str, ended_by: int) -> None:
    (tmp_path / "before_fence").write_text(action)
    code = "import sys; from omni.kernel import failpoints; failpoints.arm(sys.argv[1]); failpoints.hit('before_fence')"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], start_new_session=True, timeout=20, check=False)
    assert done.returncode == -ended_by


@pytest.mark.parametrize(("environment", "refused"), [("production", True), ("development", False)])
def test_production_refuses_failpoints(tmp_path: Path, environment: str, refused: bool) -> None:
    given = {"OMNI_FAILPOINTS": str(tmp_path), "OMNI_ENV": environment, "OMNI_STATE": str(tmp_path)}
    if not refused:
        assert config.load(environ=given).failpoints == str(tmp_path)
        return
    with pytest.raises(config.ConfigError, match="failpoints"):
        config.load(environ=given)
