"""Hand-made malicious archives: each is refused with its own code, and nothing is written outside."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from sandbox.archive import BadArchive, Limits, unpack

LIMITS = Limits(files=100, bytes=8 * 1024 * 1024, member_bytes=4 * 1024 * 1024, depth=10, ratio=200)


def header(
    name: bytes, kind: bytes = b"0", size: int | bytes = 0, mode: int = 0o644, link: bytes = b"", **raw: bytes
) -> bytes:
    fields = {
        "name": name.ljust(100, b"\0"),
        "mode": b"%07o\0" % mode,
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": size if isinstance(size, bytes) else b"%011o\0" % size,
        "mtime": b"00000000000\0",
        "sum": b" " * 8,
        "kind": kind,
        "link": link.ljust(100, b"\0"),
        "magic": b"ustar\x0000",
        "rest": b"".ljust(80, b"\0"),
        "prefix": b"".ljust(155, b"\0"),
        "pad": b"".ljust(12, b"\0"),
    } | raw
    block = b"".join(fields.values())
    assert len(block) == 512
    return block.replace(b" " * 8, b"%06o\0 " % sum(block), 1) if "sum" not in raw else block


def body(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"x", **more: Any) -> bytes:
    return header(name, size=len(data), **more) + body(data)


def tar(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header(b"pax", kind, len(data)) + body(data)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, len(name) + 1) + body(name + b"\0")


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target)


def zipped(*members: tuple[str, bytes], mode: int = 0o100644, **more: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would quietly repair it
            info.external_attr = mode << 16
            info.create_system = 3
            info.compress_type = more.get("method", zipfile.ZIP_DEFLATED)
            archive.writestr(info, data)
    return out.getvalue()


def patched(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def overlapping_zip() -> bytes:
    """One deflated body, named by many directory entries: the bomb that needs no nesting."""
    packer = zlib.compressobj(wbits=-15)
    content = bytes(500_000)
    packed = packer.compress(content) + packer.flush()
    crc = zlib.crc32(content)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(packed), len(content), 1, 0) + b"a" + packed
    central = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(packed), len(content), 1, 0, 0, 0, 0, 0, 0)
        + b"a"
        for _ in range(10)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10, 10, len(central), len(local), 0)
    return local + central + end


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


PLAIN = tar(file(b"a"))
ZIP = zipped(("a.txt", b"hello hello hello hello"))

CORPUS: dict[str, tuple[str, bytes]] = {
    "dots": ("path_traversal", tar(file(b"../evil"))),
    "dots inside": ("path_traversal", tar(file(b"a/../../evil"))),
    "dots at the end": ("path_traversal", tar(header(b"a/..", b"5"))),
    "dots in the prefix": ("path_traversal", tar(header(b"evil", prefix=b"../..".ljust(155, b"\0")))),
    "dots in a long name": ("path_traversal", tar(long_name(b"../" * 40 + b"evil"), file(b"innocent"))),
    "dots in pax": ("path_traversal", tar(pax(record(b"path", b"../evil")), file(b"innocent"))),
    "dots in zip": ("path_traversal", zipped(("../evil", b"x"))),
    "absolute": ("absolute_path", tar(file(b"/etc/evil"))),
    "absolute, doubled": ("absolute_path", tar(file(b"//etc/evil"))),
    "absolute in pax": ("absolute_path", tar(pax(record(b"path", b"/etc/evil")), file(b"innocent"))),
    "absolute in zip": ("absolute_path", zipped(("/etc/evil", b"x"))),
    "drive letter in zip": ("absolute_path", zipped(("C:/evil", b"x"))),
    "backslash in zip": ("bad_name", zipped(("..\\evil", b"x"))),
    "symlink out": ("link_escape", tar(symlink(b"l", b"../x"))),
    "symlink absolute": ("link_escape", tar(symlink(b"l", b"/etc/shadow"))),
    "symlink by a long target": ("link_escape", tar(long_name(b"/etc/" + b"x/" * 80, b"K"), symlink(b"l", b"ok"))),
    "symlink by pax": ("link_escape", tar(pax(record(b"linkpath", b"/etc/passwd")), symlink(b"l", b"ok"))),
    "symlink chain": ("link_escape", tar(symlink(b"a/up", b".."), symlink(b"b", b"a/up/../x"))),
    "symlink, too far up": ("link_escape", tar(symlink(b"a/b/l", b"../../../x"))),
    "symlink without a target": ("bad_link", tar(symlink(b"l", b""))),
    "symlink out in zip": ("link_escape", zipped(("l", b"../../etc/passwd"), mode=0o120777)),
    "symlink absolute in zip": ("link_escape", zipped(("l", b"/etc/passwd"), mode=0o120777)),
    "symlink target endless in zip": ("name_too_long", zipped(("l", b"a" * 5000), mode=0o120777)),
    "write through a link": ("path_through_link", tar(symlink(b"l", b"d"), header(b"d", b"5"), file(b"l/evil"))),
    "directory over a link": ("duplicate_name", tar(symlink(b"l", b"d"), header(b"l", b"5"))),
    "file over a link": ("duplicate_name", tar(symlink(b"l", b"d"), file(b"l"))),
    "link over a directory": ("duplicate_name", tar(file(b"d/a"), symlink(b"d", b"x"))),
    "file below a file": ("path_conflict", tar(file(b"a"), file(b"a/b"))),
    "same name twice": ("duplicate_name", tar(file(b"a"), file(b"./a"))),
    "same name twice in zip": ("duplicate_name", zipped(("a", b"1"), ("./a", b"2"))),
    "hard link out": ("hard_link_escape", tar(header(b"l", b"1", link=b"../../etc/shadow"))),
    "hard link absolute": ("hard_link_escape", tar(header(b"l", b"1", link=b"/etc/shadow"))),
    "hard link to nothing": ("bad_hard_link", tar(header(b"l", b"1", link=b"nothing"))),
    "hard link to a symlink": ("bad_hard_link", tar(symlink(b"s", b"x"), header(b"l", b"1", link=b"s"))),
    "hard link to a directory": ("bad_hard_link", tar(header(b"d", b"5"), header(b"l", b"1", link=b"d"))),
    "hard link with content": ("bad_size", tar(file(b"a"), header(b"l", b"1", 5, link=b"a") + body(b"12345"))),
    "character device": ("device", tar(header(b"null", b"3"))),
    "block device": ("device", tar(header(b"sda", b"4"))),
    "pipe": ("device", tar(header(b"pipe", b"6"))),
    "device in zip": ("device", zipped(("null", b""), mode=0o020666)),
    "setuid": ("setuid", tar(file(b"su", mode=0o4755))),
    "setgid": ("setuid", tar(file(b"su", mode=0o2755))),
    "setuid in zip": ("setuid", zipped(("su", b"x"), mode=0o104755)),
    "sparse": ("sparse", tar(header(b"s", b"S"))),
    "sparse by pax": ("sparse", tar(pax(record(b"GNU.sparse.size", b"99")), file(b"s"))),
    "unknown type": ("unsupported_type", tar(header(b"v", b"V"))),
    "negative size": ("bad_size", tar(header(b"a", size=b"\xff" * 12))),
    "negative size in a meta header": ("bad_size", tar(header(b"a", b"x", size=b"\xff" * 12))),
    "size that is no number": ("bad_size", tar(header(b"a", size=b"-0000000100\0"))),
    "negative size in pax": ("bad_size", tar(pax(record(b"size", b"-1")), file(b"a"))),
    "underscored size in pax": ("bad_size", tar(pax(record(b"size", b"1_0")), file(b"a"))),
    "size of a directory": ("bad_size", tar(header(b"d", b"5", 512) + bytes(512))),
    "huge size": ("member_too_big", tar(header(b"a", size=b"\x80" + b"\xff" * 11))),
    "member too big": ("member_too_big", tar(header(b"a", size=5 * 1024 * 1024))),
    "too many bytes": ("too_many_bytes", tar(*(file(b"%d" % n, bytes(3 * 1024 * 1024)) for n in range(3)))),
    "too many files": ("too_many_files", tar(*(header(b"%d" % n) for n in range(200)))),
    "too many implied directories": ("too_many_files", tar(*(file(b"%d/a/b/c/d" % n) for n in range(30)))),
    "one directory for ever": ("too_many_headers", tar(*(header(b"d", b"5") for _ in range(600)))),
    "global headers for ever": (
        "too_many_headers",
        tar(*(pax(record(b"comment", b"x"), kind=b"g") for _ in range(600))),
    ),
    "long names in a row": ("bad_pax", tar(*(pax(record(b"a%d" % n, b"b")) for n in range(20)), file(b"a"))),
    "gzip bomb": ("bomb", gz(tar(file(b"a", bytes(3_000_000))))),
    "gzip of zeros for ever": ("trailing_data", gz(tar(file(b"a")) + bytes(8_000_000))),
    "zip bomb": ("bomb", zipped(("a", bytes(3_000_000)))),
    "overlapping zip entries": ("overlapping_entries", overlapping_zip()),
    "zip that lies about its size": ("bad_size", patched(ZIP, struct.pack("<L", 23), struct.pack("<L", 22))),
    "zip with a wrong checksum": (
        "bad_checksum",
        patched(ZIP, struct.pack("<L", zlib.crc32(b"hello hello hello hello")), b"\1\2\3\4"),
    ),
    "zip whose headers disagree": ("bad_zip", patched(ZIP, b"a.txt", b"b.txt", 1)),
    "zip, encrypted": (
        "encrypted",
        patched(patched(ZIP, b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1"), b"\x14\3\x14\0\0", b"\x14\3\x14\0\1"),
    ),
    "zip with lzma": ("unsupported_compression", zipped(("a", b"x"), method=zipfile.ZIP_LZMA)),
    "zip with something before it": ("bad_zip", b"PK\3\4junk" + ZIP),
    "zip with something after it": ("truncated", ZIP + b"junk"),
    "zip without a directory": ("truncated", ZIP[:40]),
    "zip of several parts": ("bad_zip", patched(ZIP, b"PK\5\6\0\0", b"PK\5\6\1\0")),
    "zip, directory with content": ("bad_size", zipped(("d/", b"content"))),
    "checksum": ("bad_checksum", tar(header(b"a", sum=b"000000\0 "))),
    "no end": ("truncated", file(b"a")),
    "ends in a file": ("truncated", header(b"a", size=5000) + bytes(512)),
    "ends in a gzip": ("truncated", gz(PLAIN)[:-12]),
    "damaged gzip": ("bad_gzip", gz(PLAIN)[:10] + b"\x07" + gz(PLAIN)[11:]),
    "second archive behind the first": ("trailing_data", PLAIN + PLAIN),
    "NUL in a pax name": ("bad_name", tar(pax(record(b"path", b"a\0b")), file(b"a"))),
    "newline in a name": ("bad_name", tar(file(b"a\nb"))),
    "name not UTF-8": ("bad_name", tar(file(b"\xff\xfe"))),
    "name of nothing": ("bad_name", tar(file(b"."))),
    "part too long": ("name_too_long", tar(long_name(b"a" * 300), file(b"a"))),
    "name too long": ("name_too_long", tar(long_name(b"/".join([b"b" * 200] * 8)), file(b"a"))),
    "too deep": ("too_deep", tar(file(b"/".join([b"d"] * 12)))),
    "pax length lies": ("bad_pax", tar(header(b"p", b"x", 11) + body(b"99 path=abc"), file(b"a"))),
    "pax length zero": ("bad_pax", tar(header(b"p", b"x", 10) + body(b"0 path=ab\n"), file(b"a"))),
    "pax key twice": ("bad_pax", tar(pax(record(b"path", b"a"), record(b"path", b"b")), file(b"c"))),
    "pax renames all": ("bad_pax", tar(pax(record(b"path", b"b"), kind=b"g"), file(b"c"))),
    "pax character set": ("bad_pax", tar(pax(record(b"hdrcharset", b"KOI8-R")), file(b"c"))),
    "pax without an entry": ("bad_pax", tar(pax(record(b"path", b"b")))),
    "pax and long name": ("bad_pax", tar(long_name(b"one"), pax(record(b"path", b"two")), file(b"three"))),
    "long name twice": ("bad_pax", tar(long_name(b"one"), long_name(b"two"), file(b"three"))),
    "pax header too big": ("bad_pax", tar(header(b"p", b"x", 9_000_000))),
    "nothing in it": ("empty_archive", tar()),
    "nothing in a zip": ("empty_archive", zipped()),
    "only the root": ("empty_archive", tar(header(b"./", b"5"))),
    "text": ("bad_archive", b"#!/bin/sh\nrm -rf /\n" * 100),
    "nothing at all": ("bad_archive", b""),
    "xz": ("unsupported_compression", b"\xfd7zXZ" + bytes(600)),
}


@pytest.mark.parametrize("name", CORPUS)
def test_malicious_archives_are_refused_with_their_own_code_and_leave_nothing(name: str, tmp_path: Path) -> None:
    code, data = CORPUS[name]
    (tmp_path / "room").mkdir()
    archive, destination = tmp_path / "room" / "archive", tmp_path / "room" / "a" / "tree"
    archive.write_bytes(data)
    destination.parent.mkdir()
    with pytest.raises(BadArchive) as refusal:
        unpack(archive, destination, LIMITS)
    assert refusal.value.code == code, refusal.value
    assert refusal.value.detail
    assert list(destination.iterdir()) == []
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["room", "room/a", "room/a/tree", "room/archive"]


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CORPUS) >= 90
    assert len({code for code, _ in CORPUS.values()}) >= 25


def test_what_ordinary_tools_write_is_taken(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_text("content")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / ("n" * 120)).write_text("a long name")
    (source / "größe").write_text("not ASCII")
    (source / "link").symlink_to("deep/er/file")
    (source / "deep" / "up").symlink_to("../run")
    (source / "hard").hardlink_to(source / "run")
    for number, (kind, form) in enumerate(
        [("w", tarfile.USTAR_FORMAT), ("w:gz", tarfile.GNU_FORMAT), ("w:gz", tarfile.PAX_FORMAT)]
    ):
        archive = tmp_path / f"{number}.tar"
        with tarfile.open(archive, kind, format=form) as out:  # type: ignore[call-overload]
            if form != tarfile.USTAR_FORMAT:
                out.add(source, ".")
            else:
                for path in sorted(source.rglob("*")):
                    if path.name.isascii() and len(path.name) < 100:
                        out.add(path, str(path.relative_to(source)), recursive=False)
        tree = tmp_path / f"tree{number}"
        unpack(archive, tree)
        assert (tree / "link").read_text() == "content"
        assert (tree / "deep" / "up").resolve() == tree / "run"
        assert (tree / "run").stat().st_mode & 0o777 == 0o755
        assert (tree / "hard").read_bytes() == (tree / "run").read_bytes()
        assert (tree / "run").stat().st_mtime == int((source / "run").stat().st_mtime)


def test_a_git_archive_with_its_global_comment_is_taken(tmp_path: Path) -> None:
    archive = tmp_path / "git.tar"
    archive.write_bytes(tar(pax(record(b"comment", b"0123456789abcdef"), kind=b"g"), file(b"a", b"hello")))
    unpack(archive, tmp_path / "tree")
    assert (tmp_path / "tree" / "a").read_bytes() == b"hello"


def test_several_gzip_members_are_one_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gz(PLAIN[:600]) + gz(PLAIN[600:]) + bytes(100))
    unpack(archive, tmp_path / "tree")
    assert (tmp_path / "tree" / "a").read_bytes() == b"x"
