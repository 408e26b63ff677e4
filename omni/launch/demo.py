"""`--demo`: uploads examples/hello by the public API and prints where it runs: `python -m omni.launch.demo PLAN`.

Owns nothing but the story; everything in it is what a user could type.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omni.launch import http
from omni.launch.screen import Screen

_APP = "hello"
_TIMEOUT_S = 240.0
_PAUSE_S = 0.3


class Refused(Exception):
    """The API did not do it; the message is its own."""


def main(arguments: list[str]) -> int:
    plan: dict[str, Any] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    view = Screen()
    try:
        url = deploy(plan, view)
    except Refused as refusal:
        view.fail(f"The demo was not deployed: {refusal}")
        return 1
    print(f"\n  {_APP} runs at {url}\n", flush=True)
    return 0


def deploy(plan: dict[str, Any], view: Screen) -> str:
    """Create, upload, wait for the instance, open it. Raises Refused."""
    base = plan["here"][0]["url"]
    token = Path(plan["admin_token_file"]).read_text(encoding="utf-8").strip()
    headers = {"Authorization": f"Bearer {token}"}
    view.begin("demo", "uploading examples/hello")
    archive = pack(Path(plan["project"]) / "examples" / _APP)
    if http.call("GET", f"{base}/app/{_APP}/info", headers=headers).status == 404:
        body = json.dumps({"name": _APP, "memory_mb": 64}).encode()
        _wanted(http.call("POST", f"{base}/app/create", body=body, headers=_typed(headers, "application/json")), 201)
    version = "demo-" + hashlib.sha256(archive).hexdigest()[:8]
    upload = f"{base}/app/{_APP}/release/{version}/upload"
    answer = http.call("POST", upload, body=archive, headers=_typed(headers, "application/gzip"), timeout_s=60.0)
    _wanted(answer, 200, 202)
    build = answer.json().get("id")
    url = _wait(base, headers, version, build)
    view.end("deployed")
    return url


def _wait(base: str, headers: dict[str, str], version: str, build: Any) -> str:
    """Until the version serves through the ingress."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        state = http.call("GET", f"{base}/app/{_APP}/builds/{build}", headers=headers).json()
        if state.get("status") in ("failed", "cancelled"):
            raise Refused(f"the build {state['status']}: {(state.get('error') or {}).get('detail', '')}")
        info = http.call("GET", f"{base}/app/{_APP}/info", headers=headers).json()
        healthy = (info.get("instances_summary") or {}).get("healthy") or 0
        if healthy and (info.get("version") or {}).get("current") == version and _opens(info["urls"][0]):
            return str(info["urls"][0])
        time.sleep(_PAUSE_S)
    raise Refused(f"it was not healthy within {_TIMEOUT_S:.0f} s; see {base}/app/{_APP}/info")


def _opens(url: str) -> bool:
    """Through the ingress of this machine, whatever the name resolves to here."""
    parts = urlsplit(url)
    local = f"{parts.scheme}://127.0.0.1:{parts.port or 80}/"
    return http.call("GET", local, headers={"Host": parts.netloc}).status == 200


def _typed(headers: dict[str, str], media_type: str) -> dict[str, str]:
    return {**headers, "Content-Type": media_type}


def _wanted(answer: http.Answer, *statuses: int) -> None:
    if answer.status not in statuses:
        problem = answer.json()
        said = problem.get("detail") or problem.get("title") or answer.body.decode(errors="replace")[:200]
        raise Refused(f"{answer.status} {said}")


def pack(folder: Path) -> bytes:
    """The folder as tar.gz; the same files give the same bytes, so that a second demo finds its release there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if "__pycache__" in path.parts or "node_modules" in path.parts:
                continue
            info = tar.gettarinfo(str(path), str(path.relative_to(folder)))
            info.mtime = info.uid = info.gid = 0
            info.uname = info.gname = ""
            with path.open("rb") if path.is_file() else io.BytesIO() as content:
                tar.addfile(info, content if path.is_file() else None)
    return gzip.compress(buffer.getvalue(), mtime=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
