"""Static sites: files and a small server that comes with the release, run by the platform's own Python."""

from __future__ import annotations

from pathlib import Path

from releases.builders.base import Plan, Source

ROOTS = (".", "public")
LOOKS_FOR = "index.html or public/index.html (a static site)"
SERVER = ".omni/serve.py"


def plan(source: Source) -> Plan | None:
    root = next((root for root in ROOTS if source.has(f"{root}/index.html")), None)
    if root is None:
        return None
    if source.procfile is not None:
        return Plan("static")  # the Procfile starts a server of its own
    server = Path(__file__).with_name("static_server.py").read_bytes()
    return Plan("static", process_types={"web": f"exec python3 {SERVER} {root}"}, files={SERVER: server})
