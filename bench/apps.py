"""Apps on a bench's platform, by HTTP only: pack a folder, create, upload, wait, deploy."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.harness import PROJECT, wait_for

HELLO = PROJECT / "examples" / "hello"


def pack(files: dict[str, bytes]) -> bytes:
    """A tar.gz of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def folder(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def ask(answer: httpx.Response, *wanted: int) -> dict[str, Any]:
    """The body, if the status is one of those wanted."""
    if answer.status_code not in wanted:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:1000]}")
    body: dict[str, Any] = answer.json() if answer.content else {}
    return body


def create(client: httpx.Client, name: str, **fields: Any) -> dict[str, Any]:
    return ask(client.post("/app/create", json={"name": name, "memory_mb": 32, **fields}), 201)


def upload(client: httpx.Client, name: str, archive: bytes, *, version: str = "1", deploy: bool = True) -> float:
    """Upload and wait for the build's end; seconds from the answer to the release."""
    flag = "true" if deploy else "false"
    answer = client.post(
        f"/app/{name}/release/{version}/upload?deploy={flag}",
        content=archive,
        headers={"Content-Type": "application/gzip"},
    )
    build = ask(answer, 202)
    started = time.monotonic()

    def ended() -> bool:
        state = ask(client.get(build["links"]["self"]), 200)
        if state["status"] in ("failed", "cancelled"):
            raise RuntimeError(f"the build {state['status']}: {state['error']}")
        return bool(state["status"] == "succeeded")

    wait_for(ended, f"the build of {name}", within_s=120)
    return time.monotonic() - started


def healthy(client: httpx.Client, name: str) -> int:
    """Counted from the list: `metrics` may be a second old."""
    items = ask(client.get(f"/app/{name}/instances", params={"limit": 100}), 200)["items"]
    return sum(item["health"] == "healthy" for item in items)


def wait_healthy(client: httpx.Client, name: str, count: int, within_s: float = 120.0, pace_s: float = 0.02) -> float:
    """Seconds until `count` instances are healthy."""
    started = time.monotonic()
    wait_for(
        lambda: healthy(client, name) >= count, f"{count} healthy instances of {name}", within_s=within_s,
        pace_s=pace_s,
    )  # fmt: skip
    return time.monotonic() - started


def delete(client: httpx.Client, name: str) -> None:
    """Delete and wait until the app is gone."""
    ask(client.delete(f"/app/{name}"), 202)
    wait_for(lambda: client.get(f"/app/{name}/info").status_code == 404, f"the end of {name}", within_s=120)
