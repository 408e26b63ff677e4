"""Containers in the engine's own words: making one, and what it says of one's state.

Owns the translation of its refusals and of its states into those of `agent.runtimes.base`, and the image that programs
which are folders start from. Keeps nothing.
"""

from __future__ import annotations

import io
import tarfile
from typing import Any

from agent.runtimes.base import Observation, Refused, Unavailable, Unknown
from agent.runtimes.engine import launching
from agent.runtimes.engine.client import Declined

NEVER_STARTS = ("executable file not found", "no such file or directory", "permission denied", "exec format error")


def create(client: Any, made: launching.Container) -> str:
    return str(client.create_container(**made.config, host_config=client.create_host_config(**made.host))["Id"])


def why_not_created(error: Declined) -> Exception:
    text = str(error)
    if error.status == 400:
        return Refused(f"the engine refuses the container: {text}")
    if error.status == 409:
        return Unknown(text)  # the name is taken: another start was quicker
    return Unavailable(text)


def have_host_image(client: Any, name: str) -> None:
    """An image with nothing in it: everything that a folder's program needs is mounted."""
    from docker.errors import ImageNotFound

    try:
        client.inspect_image(name)
        return
    except ImageNotFound:
        pass
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for folder in ("app", "home", "home/app", "tmp", "etc", "usr", "proc", "sys", "dev"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
    repository, _, tag = name.partition(":")
    client.import_image_from_data(data.getvalue(), repository=repository, tag=tag)


def observation(state: dict[str, Any]) -> Observation:
    if runs_by_state(state):
        return Observation("running")
    if state.get("Status") == "created":
        return Observation("absent")  # it was never begun
    code = int(state.get("ExitCode", 0))
    oom = bool(state.get("OOMKilled")) and code != 0
    if code > 128:
        return Observation("ended", signal=code - 128, oom=oom)
    return Observation("ended", code=code, oom=oom)


def runs_by_state(state: dict[str, Any]) -> bool:
    return bool(state.get("Running") or state.get("Paused"))
