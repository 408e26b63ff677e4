from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni.kernel.errors import InvalidInput
from releases import intake


@pytest.mark.parametrize("version", ["1", "v1.2.3", "2026-11-22+abc", "A" * 64, "1_0"])
def test_a_version_is_letters_digits_and_a_few_signs(version: str) -> None:
    assert intake.check_version(version) == version


@pytest.mark.parametrize("version", ["", ".1", "-1", "a b", "a/b", "..", "ä", "1\n", "A" * 65, "$(x)"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        intake.check_version(version)
    assert refused.value.errors[0].pointer == "/version"


@given(st.binary(max_size=200))
def test_a_content_digest_is_read_back(data: bytes) -> None:
    digest = hashlib.sha256(data)
    header = f"sha-512=:AAAA:, sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert intake.announced_sha256(header) == digest.hexdigest()


@given(st.text(max_size=80))
def test_a_broken_content_digest_is_refused_and_never_ignored(text: str) -> None:
    if text == "":
        assert intake.announced_sha256(text) is None
        return
    with pytest.raises(InvalidInput) as refused:
        intake.announced_sha256(text)
    assert refused.value.code == "bad_digest"


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", "b")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "said", "expected"),
    [
        (gzip.compress(_tar()), "application/octet-stream", "application/gzip"),
        (_tar(), "", "application/x-tar"),
        (_zip(), "application/gzip", "application/zip"),
    ],
    ids=["gzip", "tar", "zip"],  # bytes that hold the time would make names that differ between test processes
)
def test_the_first_bytes_say_what_an_archive_is(tmp_path: Path, content: bytes, said: str, expected: str) -> None:
    file = tmp_path / "upload"
    file.write_bytes(content)
    assert intake.archive_type(file, said) == expected


@pytest.mark.parametrize("content", [b"", b"hello", b"\x7fELF" + bytes(600), b"<html>"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "upload"
    file.write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        intake.archive_type(file, "application/gzip")
    assert refused.value.code == "bad_archive"


def test_the_query_wins_over_the_form() -> None:
    assert intake.deploy_wanted(None, None)
    assert not intake.deploy_wanted(None, "false")
    assert intake.deploy_wanted("true", "false")
    with pytest.raises(InvalidInput):
        intake.deploy_wanted("perhaps", None)
