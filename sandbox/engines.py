"""Where a container engine of this host is to be found: one rule for agents and build workers."""

from __future__ import annotations

import contextlib
from pathlib import Path

AUTO, OFF = "auto", "off"
SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")


def find(wanted: str) -> str:
    """The engine's URL: as given, or the first socket that is there; "" when there is none, or none is wanted."""
    if wanted != AUTO:
        return "" if wanted == OFF else wanted
    for path in SOCKETS:
        with contextlib.suppress(OSError):
            if Path(path).is_socket():
                return f"unix://{path}"
    return ""
