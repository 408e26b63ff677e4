"""Packing is deterministic, unpacking gives back what was packed, and no random archive writes outside."""

import contextlib
import errno
import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sandbox.archive import BadArchive, Limits, Links, pack, unpack
from sandbox.archive_model import check_symlink, clean_name, printable
from sandbox.test_archive_corpus import CORPUS, LIMITS, PLAIN, file, pax, record, symlink, tar

PARTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"), min_size=1, max_size=12)
WILD = st.lists(st.sampled_from(["..", ".", "", "a", "b", "up", "/"]), min_size=1, max_size=8).map("/".join)
AGAIN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_tree(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def test_the_same_tree_gives_the_same_bytes_whatever_order_it_was_made_in(tmp_path: Path) -> None:
    files = {"b/two": b"2", "a": b"1", "b/one": b"x" * 1000, "c/d/e": b""}
    make_tree(tmp_path / "first", files)
    make_tree(tmp_path / "second", dict(reversed(files.items())))
    (tmp_path / "second" / "a").chmod(0o600)
    first = pack(tmp_path / "first", tmp_path / "1.tar")
    assert first == pack(tmp_path / "second", tmp_path / "2.tar")
    assert first.size == (tmp_path / "1.tar").stat().st_size


@pytest.mark.slow
@AGAIN
@given(files=st.dictionaries(PARTS.filter(lambda part: part not in (".", "..")), st.binary(max_size=600), max_size=6))
def test_unpack_gives_back_what_was_packed(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    room = tmp_path_factory.mktemp("round")
    make_tree(room / "tree", {f"d/{name}": content for name, content in files.items()} | {"always": b"1"})
    packed = pack(room / "tree", room / "p.tar")
    unpack(room / "p.tar", room / "again")
    assert pack(room / "again", room / "q.tar") == packed
    for name, content in files.items():
        assert (room / "again" / "d" / name).read_bytes() == content


def test_other_tools_read_our_packages(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"n" * 150 + "/größe": b"hello", "run": b"#!"})
    (tmp_path / "tree" / "run").chmod(0o755)
    (tmp_path / "tree" / "link").symlink_to("run")
    pack(tmp_path / "tree", tmp_path / "p.tar")
    with tarfile.open(tmp_path / "p.tar") as archive:
        assert archive.getnames() == ["link", "n" * 150, "n" * 150 + "/größe", "run"]
        assert archive.getmember("run").mode == 0o755
        assert archive.getmember("link").linkname == "run"


def test_links_into_the_place_where_the_tree_lay_become_relative(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"lib/x": b"1", "bin/y": b"2"})
    (tmp_path / "tree" / "bin" / "x").symlink_to("/app/lib/x")
    (tmp_path / "tree" / "root").symlink_to("/app")
    pack(tmp_path / "tree", tmp_path / "p.tar")
    unpack(tmp_path / "p.tar", tmp_path / "again")
    assert str((tmp_path / "again" / "bin" / "x").readlink()) == "../lib/x"
    assert str((tmp_path / "again" / "root").readlink()) == "."


@pytest.mark.parametrize("target", ["/etc/shadow", "../outside", "/app/../etc/shadow", "a/../../x", "/application/x"])
def test_a_built_tree_with_a_link_out_of_it_is_not_packed(target: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a/b": b"1"})
    (tmp_path / "tree" / "link").symlink_to(target)
    with pytest.raises(BadArchive, match="link_escape"):
        pack(tmp_path / "tree", tmp_path / "p.tar")


def test_links_to_a_permitted_prefix_are_kept_and_nothing_beside_it(tmp_path: Path) -> None:
    links = Links(prefixes=("/opt/python",))
    check_symlink("bin/python", "/opt/python/bin/python3", links)
    for target in ("/opt/python/../secret", "/opt/pythonic", "/opt", "/opt/python//bin"):
        with pytest.raises(BadArchive, match="link_escape"):
            check_symlink("bin/python", target, links)


def test_a_socket_in_a_built_tree_is_refused_and_setuid_is_lost(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"su": b"1"})
    (tmp_path / "tree" / "su").chmod(0o4755)
    pack(tmp_path / "tree", tmp_path / "p.tar")
    with tarfile.open(tmp_path / "p.tar") as archive:
        assert archive.getmember("su").mode == 0o755
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "tree" / "s"))
        with pytest.raises(BadArchive, match="device"):
            pack(tmp_path / "tree", tmp_path / "q.tar")


def test_a_hostile_tree_cannot_be_packed_beyond_its_limits(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", {"a": bytes(10_000)})
    for number in range(20):
        (tmp_path / "tree" / f"l{number}").hardlink_to(tmp_path / "tree" / "a")
    with pytest.raises(BadArchive, match="too_many_bytes"):
        pack(tmp_path / "tree", tmp_path / "p.tar", Limits(bytes=100_000))


def test_a_tree_that_is_already_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(PLAIN)
    make_tree(tmp_path / "tree", {"mine": b"1"})
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "a.tar", tmp_path / "tree")
    assert (tmp_path / "tree" / "mine").read_bytes() == b"1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_everything_belongs_to_the_owner_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(file(b"d/a"), symlink(b"d/l", b"a")))
    unpack(tmp_path / "a.tar", tmp_path / "tree", owner=(61234, 61235))
    for path in [tmp_path / "tree", *(tmp_path / "tree").rglob("*")]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (61234, 61235), path


@AGAIN
@given(entries=st.lists(st.tuples(WILD, st.none() | WILD), min_size=1, max_size=6))
@example(entries=[("a/up", ".."), ("b", "a/up/../x"), ("b/x", None)])
def test_no_mix_of_names_and_links_leads_outside(
    entries: list[tuple[str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    room = tmp_path_factory.mktemp("mix")
    parts = [
        pax(*(record(key, value.encode()) for key, value in ((b"path", name), (b"linkpath", target)) if value))
        + (file(b"f") if target is None else symlink(b"l", b"t"))
        for name, target in entries
    ]
    (room / "a.tar").write_bytes(tar(*parts))
    with contextlib.suppress(BadArchive):
        unpack(room / "a.tar", room / "tree")
    tree = room / "tree"
    for path in tree.rglob("*"):
        try:
            path.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                continue  # leads nowhere
        assert path.resolve().is_relative_to(tree), (path, path.readlink())
    assert {path.name for path in room.iterdir()} == {"a.tar", "tree"}


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(sorted(CORPUS)), changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6)
)
def test_damaged_archives_are_refused_or_read_but_never_crash_or_escape(
    seed: str, changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    room = tmp_path_factory.mktemp("damage")
    data = bytearray(CORPUS[seed][1][:40_000])
    for position, value in changes:
        if data:
            data[position % min(len(data), 2000)] = value
    (room / "archive").write_bytes(data)
    with contextlib.suppress(BadArchive):
        unpack(room / "archive", room / "tree", LIMITS)
    assert {path.name for path in room.iterdir()} <= {"archive", "tree"}


@given(name=WILD)
def test_a_clean_name_stays_clean_and_below(name: str) -> None:
    with contextlib.suppress(BadArchive):
        cleaned = clean_name(name, Limits())
        assert clean_name(cleaned, Limits()) == cleaned
        assert not cleaned.startswith("/")
        assert ".." not in cleaned.split("/")


@given(text=st.text())
def test_what_is_shown_of_a_name_cannot_forge_a_log_line(text: str) -> None:
    assert printable(text).isprintable() or not text
    assert len(printable(text)) <= 201
