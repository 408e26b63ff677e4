"""A store of its own for each test, an app to upload to, and an upload as the front would hand it over."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from apps.models import App
from releases import storage
from releases.content_directory import ContentDirectory
from releases.storage import ArtifactStore


@dataclass(frozen=True, slots=True)
class FakeUpload:
    path: Path
    sha256: str
    size: int
    media_type: str = "application/gzip"
    fields: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactStore]:
    """The process's artifact store, in a directory of the test's own."""
    fresh = ArtifactStore(ContentDirectory(tmp_path / "artifacts"))
    monkeypatch.setattr(storage, "build_store", lambda _config: fresh)
    storage.store.cache_clear()
    yield fresh
    storage.store.cache_clear()


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., FakeUpload]:
    """`upload(b"…")`: those bytes, gzipped, on disk and hashed."""

    def make(
        content: bytes = b"", *, media_type: str = "application/gzip", raw: bool = False, **fields: str
    ) -> FakeUpload:
        data = content if raw else gzip.compress(content or secrets.token_bytes(20), mtime=0)
        folder = tmp_path / "artifacts" / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}.part"
        path.write_bytes(data)
        return FakeUpload(path, hashlib.sha256(data).hexdigest(), len(data), media_type, fields)

    return make


@pytest.fixture
def app(fence: None) -> App:
    from omni.testing.factories import make_app

    return make_app(name="shop")
