"""Who asks, and which request: carried along by context variables, never by globals.

Owns `Actor` and the request id. Must not look anything up: authentication fills it in.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

from observing.journal import on_behalf_of, request_id

__all__ = ["ANONYMOUS", "Actor", "is_request_id", "new_request_id", "on_behalf_of", "request_id", "system"]

ActorKind = Literal["token", "user", "agent", "worker", "system", "anonymous"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever acts. `name` is what the event list shows; `scopes` are exact names (accounts.roles)."""

    kind: ActorKind
    id: int = 0
    name: str = ""
    org_id: int | None = None
    user_id: int | None = None
    role: str = ""
    scopes: frozenset[str] = field(default_factory=frozenset)
    platform: bool = False  # sees and runs the platform itself, and every org

    @property
    def label(self) -> str:
        return f"{self.kind}:{self.name or self.id}"


ANONYMOUS = Actor("anonymous", name="anonymous")


def system(name: str) -> Actor:
    """The platform itself: a controller, the relay, the start-up."""
    return Actor("system", name=name, role="owner", platform=True)


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def is_request_id(text: str) -> bool:
    """Whether a caller may name its request so: short, and harmless in a log."""
    return _REQUEST_ID.fullmatch(text) is not None


def new_request_id() -> str:
    return "req_" + secrets.token_hex(8)
