"""What has to be there before a container of a `Launch` can be made: its home, its volumes, its image.

Owns the making of it on this host. Both runtimes of the engine start from the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from agent.runtimes import kept
from agent.runtimes.base import Launch
from agent.runtimes.engine import containers
from agent.runtimes.engine.client import Engine
from sandbox import bubblewrap, identity


@dataclass(frozen=True, slots=True)
class Prepared:
    """`uid` is the app's user; `binds` are of the host's system, for a release that is a folder; `image` is what the
    engine says of one that is an image."""

    uid: int
    binds: tuple[tuple[str, str], ...] = ()
    image: dict[str, Any] = field(default_factory=dict)


def host_image(platform: str) -> str:
    return f"localhost/{platform}-host:latest"  # Podman takes a short name for Docker Hub's


async def host_image_there(engine: Engine, platform: str) -> None:
    """The image that folders start from, made if need be. Raises Away, Declined."""
    await engine.call(lambda client: containers.have_host_image(client, host_image(platform)))


async def prepare(engine: Engine, launch: Launch, uid_base: int) -> Prepared:
    """All but the image that folders start from. Raises Away, Declined, Unavailable."""
    root = os.geteuid() == 0
    uid = identity.uid_for("app", launch.app_id, uid_base) if root else os.geteuid()
    binds: tuple[tuple[str, str], ...] = ()
    if not launch.image:
        binds = tuple((bind.source, bind.target) for bind in bubblewrap.runtime_binds())
        launch.home.mkdir(mode=0o700, exist_ok=True)
        if root:
            os.chown(launch.home, uid, uid)
    kept.prepare(launch, uid if root else None)
    image: dict[str, Any] = {}
    if launch.image:
        image = await engine.call(lambda client: client.inspect_image(launch.image))
    return Prepared(uid, binds, image)
