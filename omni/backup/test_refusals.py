"""What a backup or a restore refuses, in words, before it changes anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from omni.backup import Refused, verify
from omni.launch.pidfile import PidFile
from omni.testing.places import Place

pytestmark = pytest.mark.slow


@pytest.fixture
def broken(seeded: Place, tmp_path: Path) -> Callable[[Callable[[Path], None]], Path]:
    """The seeded archive after something happened to it."""

    def make(happen: Callable[[Path], None]) -> Path:
        path = tmp_path / "broken"
        shutil.copy(seeded.folder / "backup", path)
        happen(path)
        return path

    return make


def flip(path: Path) -> None:
    """One bit in the middle of the largest part."""
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("rows/instances.logline.jsonl")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 200] ^= 1
    path.write_bytes(data)


def rewritten(part: str, content: bytes | None) -> Callable[[Path], None]:
    """The same archive by another hand: one part changed, or left out."""

    def happen(path: Path) -> None:
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        if content is None:
            parts.pop(part)
        else:
            parts[part] = content
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)

    return happen


@pytest.mark.parametrize(
    ("happen", "said"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "only a part of one"),
        (lambda path: path.write_bytes(b""), "no backup of ours"),
        (flip, "is damaged"),
        (rewritten("rows/apps.app.jsonl", b"[]\n"), "rows/apps.app.jsonl is damaged"),
        (rewritten("rows/apps.app.jsonl", None), "rows/apps.app.jsonl is missing"),
        (rewritten("manifest.json", b'{"format": 99}'), "manifest.json cannot be read: created_at"),
    ],
)
def test_a_damaged_archive_is_not_accepted(
    broken: Callable[..., Path], happen: Callable[[Path], None], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        verify.verify(broken(happen))


def test_an_archive_is_read_through_before_anything_is_changed(
    broken: Callable[..., Path], place: Callable[..., Place]
) -> None:
    goal = place("goal")
    assert "is damaged" in goal.refused("cluster_restore", broken(flip))
    assert not goal.state.exists()


def test_verify_tells_whose_an_archive_is(seeded: Place, place: Callable[..., Place], blank: Place) -> None:
    archive = seeded.folder / "backup"
    said = seeded.manage("cluster_backup", archive, "--verify", "--passphrase-file", seeded.passphrase)
    assert "made by cluster" in said
    assert "the passphrase opens its keys: admin.token, cluster.secret, django.key, master.key" in said
    assert "was not proven" in place("stranger").manage("cluster_backup", archive, "--verify")
    assert "of another cluster" in blank.manage("cluster_backup", archive, "--verify")


def test_a_database_in_use_is_replaced_only_when_asked(copied: Place, seeded: Place) -> None:
    archive = seeded.folder / "backup"
    epoch = copied.fence()[1]
    said = copied.refused("cluster_restore", archive)
    assert "not empty" in said
    assert "--replace" in said
    assert copied.fence()[1] == epoch
    copied.manage("cluster_restore", archive, "--replace")
    assert copied.fence()[1] > epoch + 999


@pytest.mark.long
def test_keys_decide_what_may_be_restored(seeded: Place, place: Callable[..., Place]) -> None:
    archive, goal = seeded.folder / "backup", place("goal")
    assert "there is no cluster.secret here: give --passphrase-file" in goal.refused("cluster_restore", archive)
    wrong = goal.folder / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("not the passphrase\n")
    assert "does not open" in goal.refused("cluster_restore", archive, "--passphrase-file", wrong)
    wrong.chmod(0o644)
    assert "chmod 600" in goal.refused("cluster_restore", archive, "--passphrase-file", wrong)
    assert not (goal.state / "cluster.secret").exists()
    goal.state.mkdir(exist_ok=True)
    shutil.copy(seeded.state / "cluster.secret", goal.state)
    said = goal.refused("cluster_restore", archive)
    assert "the master key here does not open the secrets" in said
    shutil.copy(seeded.state / "master.key", goal.state)
    assert "Restored" in goal.manage("cluster_restore", archive)


@pytest.mark.long
def test_a_backup_of_another_cluster_is_taken_over_only_by_name(seeded: Place, fresh: Place) -> None:
    archive, goal = seeded.folder / "backup", fresh
    theirs, ours = seeded.fence()[0], goal.fence()[0]
    arguments = ("cluster_restore", archive, "--replace")
    said = goal.refused(*arguments)
    assert theirs in said
    assert ours in said
    assert "holds another admin.token, cluster.secret" in goal.refused(
        *arguments, "--passphrase-file", seeded.passphrase
    )
    assert "the master key here does not open" in goal.refused(*arguments, "--from", theirs)
    own = (goal.state / "master.key").read_text()
    (goal.state / "master.key").write_text(own + (seeded.state / "master.key").read_text())
    goal.manage(*arguments, "--from", theirs)
    assert goal.fence()[0] == ours


@pytest.mark.long
def test_a_damaged_artifact_is_named_and_can_be_left_out(copied: Place, place: Callable[..., Place]) -> None:
    bad, gone, *_ = sorted((copied.state / "artifacts").glob("*/*"))
    bad.write_bytes(b"x" * bad.stat().st_size)
    gone.unlink()
    archive = copied.folder / "partly"
    said = copied.refused("cluster_backup", archive)
    assert bad.name in said or gone.name in said
    assert not archive.exists()
    assert list(copied.folder.glob(".*.part")) == []
    copied.manage("cluster_backup", archive, "--without-damaged", "--passphrase-file", copied.passphrase)
    assert "2 artifacts were damaged" in copied.manage("cluster_backup", archive, "--verify")
    said = place("goal").manage("cluster_restore", archive, "--passphrase-file", copied.passphrase)
    assert f"artifact {gone.name} (upload) was not in the backup" in said


@pytest.mark.long
def test_half_a_platform_is_not_backed_up(place: Callable[..., Place], copied: Place) -> None:
    empty = place("empty")
    assert "no platform was ever started" in empty.refused("cluster_backup", empty.folder / "backup")
    with contextlib.closing(sqlite3.connect(copied.state / "omni.sqlite3")) as database:
        database.execute("DELETE FROM django_migrations WHERE app = 'instances'")
        database.commit()
    assert "migrations; run: .venv/bin/python manage.py migrate_all" in copied.refused(
        "cluster_backup", copied.folder / "backup-2"
    )
    assert "is there already" in copied.refused("cluster_backup", copied.folder / "backup")


def test_a_database_with_a_newer_schema_is_refused(seeded: Place, copied: Place) -> None:
    with contextlib.closing(sqlite3.connect(copied.state / "omni.sqlite3")) as database:
        database.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('apps', '9999_future', '2030-1-1')"
        )
        database.commit()
    said = copied.refused("cluster_restore", seeded.folder / "backup", "--replace")
    assert "newer schema than the backup (apps.9999_future)" in said


def test_a_platform_at_work_is_never_restored_over(copied: Place, seeded: Place) -> None:
    held = PidFile(copied.state / "start.pid")
    held.take()
    try:
        said = copied.refused("cluster_restore", seeded.folder / "backup", "--replace")
    finally:
        held.release()
    assert f"(pid {os.getpid()})" in said
    writer = copied.start("-m", "omni.backup.testbed", "write", "--seconds", "20")
    try:
        while copied.fence()[2] == seeded.fence()[2]:
            assert writer.poll() is None
        said = copied.refused("cluster_restore", seeded.folder / "backup", "--replace")
    finally:
        writer.kill()
        writer.communicate()
    assert f"(pid {writer.pid})" in said
