"""The directories of volumes, ready to be bound into what is started.

Owns their making and whose they are. A new one belongs to the app's user; in an image nobody knows beforehand as which
user its program runs, so there it is open to every user of that container.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.runtimes.base import Launch, Unavailable
from agent.volumes import recover


def prepare(launch: Launch, uid: int | None) -> None:
    """Make what is missing, leave what is there. `uid` None: we cannot give files away. Raises Unavailable."""
    for volume in launch.volumes:
        try:
            volume.source.parent.mkdir(mode=0o711, exist_ok=True)
            recover(volume.source)
            made = not volume.source.exists()
            volume.source.mkdir(mode=0o700, exist_ok=True)
            if made and launch.image:
                volume.source.chmod(0o777)
            elif uid is not None and not launch.image and volume.source.stat().st_uid != uid:
                _give(volume.source, volume.source.stat().st_uid, uid)
        except OSError as error:
            raise Unavailable(f"volume {volume.name} cannot be made: {error}") from error


def _give(volume: Path, before: int, uid: int) -> None:
    """All that its owner has in it changes hands: it was restored before its app had ever run here. Nothing runs on
    it yet; links are not followed."""
    for _, folders, files, at in os.fwalk(volume, follow_symlinks=False):
        for name in (*folders, *files):
            if os.stat(name, dir_fd=at, follow_symlinks=False).st_uid == before:
                os.chown(name, uid, uid, dir_fd=at, follow_symlinks=False)
    os.chown(volume, uid, uid)  # last: until then it is done again
