"""What goes into the archive of a snapshot, and comes out of it again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.volume_archive import LINKS, Tally, pieces
from sandbox.archive import BadArchive, Keep, Limits, unpack

MOST = 1 << 30


def packed(volume: Path, archive: Path, most: int = MOST, tick: Callable[[], None] = lambda: None) -> Tally:
    tally = Tally()
    with archive.open("wb") as out:
        for piece in pieces(volume, most, tally, tick):
            out.write(piece)
    return tally


def there_and_back(volume: Path, tmp_path: Path) -> tuple[Path, Tally]:
    tally = packed(volume, tmp_path / "archive")
    limits = Limits(bytes=tally.content_bytes, member_bytes=tally.content_bytes, ratio=2_000)
    unpack(tmp_path / "archive", tmp_path / "back", limits, LINKS, keep=Keep())
    return tmp_path / "back", tally


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir(mode=0o700)
    return made


def test_contents_modes_times_and_links_come_back_as_they_were(volume: Path, tmp_path: Path) -> None:
    inner = volume / "inner"
    inner.mkdir()
    (inner / "key").write_bytes(b"secret" * 500_000)
    (inner / "key").chmod(0o600)
    os.utime(inner / "key", (1_600_000_000, 1_600_000_000))
    (volume / ("long" * 50)).write_text("x")
    os.link(inner / "key", volume / "same")
    (volume / "out").symlink_to("/data/../etc/shadow")
    inner.chmod(0o500)
    os.utime(inner, (1_500_000_000, 1_500_000_000))
    back, tally = there_and_back(volume, tmp_path)
    assert (back / "inner" / "key").read_bytes() == b"secret" * 500_000
    assert (back / "inner" / "key").stat().st_mode & 0o7777 == 0o600
    assert (back / "inner" / "key").stat().st_mtime == 1_600_000_000
    assert (back / "inner").stat().st_mode & 0o7777 == 0o500
    assert (back / "inner").stat().st_mtime == 1_500_000_000
    assert (back / "same").stat().st_ino == (back / "inner" / "key").stat().st_ino
    assert (back / "out").readlink() == Path("/data/../etc/shadow")
    assert (tally.files, tally.skipped, tally.content_bytes) == (5, 0, 3_000_001)
    assert tally.root["mode"] == 0o700


def test_a_volume_that_nobody_used_yet_is_an_empty_one(volume: Path, tmp_path: Path) -> None:
    back, tally = there_and_back(volume / "nowhere", tmp_path)
    assert (list(back.iterdir()), tally.files, tally.root) == ([], 0, {})


def test_sockets_and_pipes_are_left_out_and_counted(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (volume / "file").write_text("x")
    os.mkfifo(volume / "pipe")
    monkeypatch.chdir(volume)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        back, tally = there_and_back(volume, tmp_path)
    assert [path.name for path in back.iterdir()] == ["file"]
    assert tally.skipped == 2


def test_setuid_is_not_kept(volume: Path, tmp_path: Path) -> None:
    (volume / "tool").write_text("x")
    (volume / "tool").chmod(0o6755)
    back, _ = there_and_back(volume, tmp_path)
    assert (back / "tool").stat().st_mode & 0o7777 == 0o755


def test_what_changes_while_it_is_read_neither_ends_the_snapshot_nor_leads_astray(volume: Path, tmp_path: Path) -> None:
    """The program replaces a folder by a link, shortens one file and removes another, right under the reader."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("not ours")
    for name in ("a", "z"):
        (volume / name).write_bytes(b"x" * 3_000_000)
    (volume / "m").mkdir()
    (volume / "m" / "inner").write_text("x")
    tally, archive = Tally(), tmp_path / "archive"
    made = pieces(volume, MOST, tally, lambda: None)

    calls = 0

    def change() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # in the middle of the first file
            os.truncate(volume / "a", 1_000_000)
            (volume / "m" / "inner").unlink()
            (volume / "m").rmdir()
            (volume / "m").symlink_to(outside)
            (volume / "z").unlink()

    made = pieces(volume, MOST, tally, change)
    archive.write_bytes(b"".join(made))
    limits = Limits(bytes=MOST, member_bytes=MOST, ratio=2_000)
    unpack(archive, tmp_path / "back", limits, LINKS, keep=Keep())
    assert (tmp_path / "back" / "a").stat().st_size == 3_000_000  # padded: as long as it was
    assert (tmp_path / "back" / "m").readlink() == outside
    assert not (tmp_path / "back" / "z").exists()
    assert b"not ours" not in b"".join(path.read_bytes() for path in (tmp_path / "back").glob("*") if path.is_file())
    assert tally.skipped == 1


@pytest.mark.parametrize(("name", "code"), [(b"caf\xe9", "bad_name"), (b"two\nlines", "bad_name")])
def test_a_name_that_could_not_come_back_is_refused_before_it_is_needed(
    volume: Path, tmp_path: Path, name: bytes, code: str
) -> None:
    (volume / os.fsdecode(name)).write_text("x")
    with pytest.raises(BadArchive) as refused:
        packed(volume, tmp_path / "archive")
    assert refused.value.code == code


def test_the_limit_is_of_what_is_in_it(volume: Path, tmp_path: Path) -> None:
    (volume / "one").write_bytes(bytes(600))
    (volume / "two").write_bytes(bytes(600))
    with pytest.raises(BadArchive, match="too_many_bytes"):
        packed(volume, tmp_path / "archive", most=1000)


def test_depth_has_an_end(volume: Path, tmp_path: Path) -> None:
    (volume / "/".join(["d"] * 70)).mkdir(parents=True)
    with pytest.raises(BadArchive, match="too_deep"):
        packed(volume, tmp_path / "archive")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_kept_also_large_numbers(volume: Path, tmp_path: Path) -> None:
    (volume / "file").write_text("x")
    os.chown(volume / "file", 3_000_000_123, 999)
    tally = packed(volume, tmp_path / "archive")
    limits = Limits(bytes=tally.content_bytes, member_bytes=tally.content_bytes)
    keep = Keep(lambda uid, gid: (uid, gid))
    unpack(tmp_path / "archive", tmp_path / "back", limits, LINKS, keep=keep)
    status = (tmp_path / "back" / "file").stat()
    assert (status.st_uid, status.st_gid) == (3_000_000_123, 999)
