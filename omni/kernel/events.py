"""What a verb says about its change, before the gate numbers it.

Owns `EventDraft`. Names are past tense: `app.created`, `instance.crashed`. Secret values never enter `change`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class EventDraft:
    """One event to be: `change` is small JSON, `{"field": [before, after]}` or facts; `cause` overrides the gate's."""

    kind: str
    object_type: str
    object_id: int
    org_id: int | None = None
    app_id: int | None = None
    change: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None
