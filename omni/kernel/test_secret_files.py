"""Secrets in files: private, whole, and one winner when several processes come at once."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omni.kernel import config, secret_files
from omni.kernel.secret_files import UnsafeSecretFile

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


@posix
def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "below" / "admin.token"
    assert secret_files.read_or_create(path, lambda: "first") == "first"
    assert secret_files.read_or_create(path, lambda: "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
def test_a_generous_umask_does_not_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret_files.write(tmp_path / "key", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_may_read_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(mode)
    with pytest.raises(UnsafeSecretFile, match="chmod 600"):
        secret_files.read(path)


@posix
def test_a_link_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(UnsafeSecretFile):
        secret_files.read(tmp_path / "link")
    secret_files.write(tmp_path / "empty", "")
    with pytest.raises(UnsafeSecretFile, match="empty"):
        secret_files.read(tmp_path / "empty")


def test_when_many_come_at_once_all_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(16) as pool:
        got = set(pool.map(lambda number: secret_files.read_or_create(path, lambda: f"secret {number}"), range(64)))
    assert len(got) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"], "no temporary file stays"


def test_one_host_gets_three_different_keys_and_several_hosts_none(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"instances": [{"port": 8000}]}')
    secret_files_of = {"OMNI_STATE": str(tmp_path / "one")}
    secret_files.ensure_keys(config.load(file, secret_files_of))
    made = {path.name: path.read_text() for path in (tmp_path / "one").iterdir()}
    assert set(made) == {"cluster.secret", "django.key", "master.key"}
    assert len(set(made.values())) == 3
    file.write_text(
        '{"address": "10.0.0.1", '
        '"instances": [{"port": 8000, "address": "10.0.0.1"}, {"port": 8000, "address": "10.0.0.2"}]}'
    )
    environ = {"OMNI_DATABASE_URL": "mysql://u:long-enough@h/n", "OMNI_CLUSTER_SECRET": "y" * 40}
    secret_files.ensure_keys(config.load(file, {**environ, "OMNI_STATE": str(tmp_path / "many")}))
    assert not (tmp_path / "many").exists()
