"""The state machine of volumes, as a table. Pure.

`removed` is said at once; the bytes go when the node's agent hears of it (`Volume.on_node` says whether they may still
be there).
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

API = "api"


class VolumeStatus(TextChoices):
    READY = "ready"
    REMOVED = "removed"


VOLUME = TransitionTable(
    noun="volume",
    order=(VolumeStatus.READY, VolumeStatus.REMOVED),
    initial=VolumeStatus.READY,
    terminal=frozenset({VolumeStatus.REMOVED}),
    edges={(VolumeStatus.READY, VolumeStatus.REMOVED): API},
)
