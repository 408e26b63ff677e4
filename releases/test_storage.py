from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from omni.kernel import clock
from omni.kernel.errors import InvalidInput, NotFound, OmniError, StorageFull
from releases.content_directory import ContentDirectory
from releases.storage import ArtifactStore

DATA = b"some bytes" * 1000
SHA = hashlib.sha256(DATA).hexdigest()
HOUR = dt.timedelta(hours=1)


def test_an_upload_becomes_the_file_of_its_digest_and_leaves_nothing_else(artifacts: ArtifactStore, upload) -> None:
    given = upload(DATA, raw=True)
    artifacts.put(given)
    path = artifacts.path(given.sha256)
    assert path is not None
    assert path.parent.name == SHA[:2]
    assert path.name == SHA
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o600
    assert not given.path.exists()
    assert artifacts.verify(SHA)
    assert artifacts.size(SHA) == len(DATA)
    assert list(artifacts.local_digests()) == [SHA]


def test_the_file_is_moved_not_copied_when_it_can_be(artifacts: ArtifactStore, upload) -> None:
    given = upload(DATA, raw=True)
    inode = given.path.stat().st_ino
    artifacts.put(given)
    assert artifacts.path(SHA).stat().st_ino == inode


def test_storing_again_repairs_a_damaged_file(artifacts: ArtifactStore, upload) -> None:
    artifacts.put(upload(DATA, raw=True))
    artifacts.path(SHA).write_bytes(b"rotten")
    assert not artifacts.verify(SHA)
    artifacts.put_file(SHA, ContentFile(DATA))
    assert artifacts.verify(SHA)


def test_what_is_not_there_is_said_so(artifacts: ArtifactStore) -> None:
    assert not artifacts.exists(SHA)
    assert artifacts.size(SHA) is None
    assert not artifacts.verify(SHA)
    with pytest.raises(NotFound):
        artifacts.open(SHA)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_no_other_path_can_be_asked_for(artifacts: ArtifactStore, name: str) -> None:
    for ask in (artifacts.open, artifacts.path, artifacts.exists, artifacts.delete):
        with pytest.raises(InvalidInput):
            ask(name)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, OmniError)]
)
def test_a_disk_that_refuses_is_no_success(
    artifacts: ArtifactStore, upload, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[OmniError]
) -> None:
    given = upload(DATA, raw=True)

    def refuse(_fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind) as refused:
        artifacts.put(given)
    assert refused.value.status == (507 if kind is StorageFull else 500)
    assert not artifacts.exists(SHA)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_keeps_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no mount here")
    try:
        store = ArtifactStore(ContentDirectory(small))
        with pytest.raises(StorageFull):
            store.put_file(SHA, ContentFile(b"x" * 200_000))
        assert list(store.local_digests()) == []
        assert [path for path in small.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_discard_spares_what_was_stored_again(artifacts: ArtifactStore, upload) -> None:
    artifacts.put(upload(DATA, raw=True))
    assert not artifacts.discard(SHA, unless_newer_than=clock.now() - HOUR)
    assert artifacts.verify(SHA)
    assert artifacts.discard(SHA, unless_newer_than=clock.now() + HOUR)
    assert not artifacts.exists(SHA)
    assert artifacts.discard(SHA, unless_newer_than=clock.now())


def test_leftovers_are_swept_once_they_are_old(artifacts: ArtifactStore, upload) -> None:
    kept, left = upload(DATA, raw=True), upload(b"other", raw=True)
    artifacts.put(kept)
    old = time.time() - 7200
    os.utime(left.path, (old, old))
    os.utime(artifacts.path(SHA), (old, old))
    assert artifacts.sweep(clock.now() - HOUR) == 1
    assert not left.path.exists()
    assert artifacts.exists(SHA)


_KILLED = """
import os, signal, sys
from pathlib import Path
from django.conf import settings
settings.configure()
from releases import content_directory as c
step, folder = sys.argv[1], Path(sys.argv[2])
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
if step == "before fsync": c._fsync = die
if step == "before rename": c.os.utime = die
if step == "after rename": c._fsync_directory = lambda f, done=[]: die() if (folder / "ab").exists() and any(
    p.name == "ab" * 32 for p in (folder / "ab").iterdir()) else None
from django.core.files.base import ContentFile
c.ContentDirectory(folder).save("ab/" + "ab" * 32, ContentFile(b"whole" * 100000))
print("acknowledged")
"""


@pytest.mark.parametrize(("step", "there"), [("before fsync", False), ("before rename", False), ("after rename", True)])
def test_a_killed_writer_leaves_a_whole_file_or_none(tmp_path: Path, step: str, there: bool) -> None:
    folder = tmp_path / "store"
    ended = subprocess.run([sys.executable, "-c", _KILLED, step, str(folder)], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert "acknowledged" not in ended.stdout
    store = ArtifactStore(ContentDirectory(folder))
    digest = "ab" * 32
    assert store.exists(digest) is there
    if there:
        assert store.size(digest) == 500_000
    store.sweep(clock.now() + HOUR)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == int(there)
