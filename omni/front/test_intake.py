"""Uploads on their way to disk: what is taken, what is refused, and that nothing is left of the refused."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni.front.intake import Intake, is_upload
from omni.front.requests import Request
from omni.front.test_front import request
from omni.kernel.errors import Malformed, OmniError, StorageFull, TooLarge, UnsupportedMedia


def intake(folder: Path, limit: int = 10_000) -> Intake:
    return Intake(folder, limit, 1.0)


GZIP = {"content_type": "application/gzip"}
FORM = {"content_type": "multipart/form-data; boundary=b"}


TWO_FILES = [b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n1\r\n' * 2 + b"--b--\r\n"]


def test_a_raw_body_lands_on_disk_with_its_digest(tmp_path: Path) -> None:
    data = [b"a" * 3000, b"b" * 3000]
    sent = request("POST", body=data, **GZIP, content_length="6000")
    upload = asyncio.run(intake(tmp_path).receive(sent))
    whole = b"a" * 3000 + b"b" * 3000
    assert upload.path.read_bytes() == whole
    assert upload.sha256 == hashlib.sha256(whole).hexdigest()
    assert (upload.size, upload.media_type) == (6000, "application/gzip")


def form(*parts: tuple[str, bytes], end: bool = True) -> list[bytes]:
    out = b""
    for name, data in parts:
        out += b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"; filename="x"\r\n'
        out += b"Content-Type: application/zip\r\n\r\n" + data + b"\r\n"
    out += b"--b--\r\n" if end else b""
    return [out[i : i + 7] for i in range(0, len(out), 7)]


@pytest.mark.parametrize("name", ["file", "media", "upload"])
def test_the_file_of_a_form_is_found_under_each_of_its_names(tmp_path: Path, name: str) -> None:
    sent = request("POST", body=form(("deploy", b"false"), (name, b"PK data")), **FORM)
    upload = asyncio.run(intake(tmp_path).receive(sent))
    assert upload.path.read_bytes() == b"PK data"
    assert upload.fields == {"deploy": "false"}
    assert upload.media_type == "application/zip"


@pytest.mark.parametrize(
    ("sent", "error", "code"),
    [
        (lambda: request("POST", body=[b"x" * 20_000], **GZIP), TooLarge, "upload_too_large"),
        (lambda: request("POST", body=[b"x"], **GZIP, content_length="999999"), TooLarge, None),
        (lambda: request("POST", body=[b"x"], gone=True, **GZIP), Malformed, "truncated"),
        (lambda: request("POST", body=[b"xyz"], **GZIP, content_length="10"), Malformed, "truncated"),
        (lambda: request("POST", body=[b""], **GZIP), Malformed, "empty_upload"),
        (lambda: request("POST", body=[b"x"], content_type="text/html"), UnsupportedMedia, None),
        (lambda: request("POST", body=form(("x", b"1")), **FORM), OmniError, "file_missing"),
        (lambda: request("POST", body=form(("file", b"1"), end=False), **FORM), Malformed, "truncated"),
        (lambda: request("POST", body=TWO_FILES, **FORM), Malformed, "too_many_files"),
        (lambda: request("POST", body=[b"garbage"], **FORM), Malformed, None),
        (lambda: request("POST", body=[b"x"], content_type="multipart/form-data; boundary=" + "b" * 5000), Malformed,
         "malformed_form"),
    ],
)  # fmt: skip
def test_a_bad_upload_leaves_nothing(
    tmp_path: Path, sent: Callable[[], Request], error: type[OmniError], code: str | None
) -> None:
    with pytest.raises(error) as refused:
        asyncio.run(intake(tmp_path).receive(sent()))
    assert code is None or refused.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_package_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """A build may make more of an upload than an upload may be."""
    both = Intake(tmp_path, 10, 1.0, package_limit=1000)
    body = [b"x" * 500]
    assert asyncio.run(both.receive(request("PUT", body=body, content_type="application/x-tar"))).size == 500
    for method, size in (("POST", 500), ("PUT", 1001)):
        with pytest.raises(TooLarge):
            asyncio.run(both.receive(request(method, body=[b"x" * size], content_type="application/x-tar")))


def test_the_archive_of_a_snapshot_comes_in_chunks_and_has_its_own_limit(tmp_path: Path) -> None:
    both = Intake(tmp_path, 10, 1.0, package_limit=20, snapshot_limit=1000)
    path = "/agent/snapshots/7"
    assert is_upload(request("PUT", path, **GZIP))
    assert not is_upload(request("PUT", path + "/x", **GZIP))
    assert asyncio.run(both.receive(request("PUT", path, body=[b"x" * 400, b"x" * 400], **GZIP))).size == 800
    with pytest.raises(TooLarge):
        asyncio.run(both.receive(request("PUT", path, body=[b"x" * 400] * 3, **GZIP)))


def test_a_copy_may_be_as_large_as_anything_that_was_taken(tmp_path: Path) -> None:
    both = Intake(tmp_path, 10, 1.0, package_limit=20, snapshot_limit=1000)
    sent = request("PUT", f"/internal/copies/{'0' * 64}", body=[b"x" * 900], **GZIP)
    assert asyncio.run(both.receive(sent)).size == 900


def test_what_a_killed_process_left_is_swept_a_day_later(tmp_path: Path) -> None:
    old, new = tmp_path / "a.part", tmp_path / "b.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    intake(tmp_path).sweep()
    assert list(tmp_path.iterdir()) == [new]


def test_an_idle_client_is_given_up(tmp_path: Path) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError("unreachable")

    sent = request("POST", **GZIP)
    sent.receive = receive
    idle = Intake(tmp_path, 1000, 0.05)
    with pytest.raises(Malformed) as refused:
        asyncio.run(idle.receive(sent))
    assert refused.value.code == "upload_idle"
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_fills_the_disk_ends_before_the_database_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise StorageFull(f"{folder.name} is almost full")

    monkeypatch.setattr("omni.front.intake._LOOK_BYTES", 3000)
    taken = Intake(tmp_path, 100_000, 1.0, check_room=full)
    small = request("POST", body=[b"a" * 2000], **GZIP)
    asyncio.run(taken.receive(small)).path.unlink()
    with pytest.raises(StorageFull):
        asyncio.run(taken.receive(request("POST", body=[b"a" * 2000] * 3, **GZIP)))
    assert list(tmp_path.iterdir()) == []
