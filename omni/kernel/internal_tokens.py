"""Tokens by which the platform's own processes know each other: minted from the cluster secret, stored nowhere.

`omni_node_<node>_<hmac>` for a node's agent and ingress, `omni_worker_<name>_<hmac>` for a build worker. Must not touch
the database; users' tokens are `accounts`' business.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal, cast

Kind = Literal["node", "worker"]
_FORM = re.compile(r"omni_(node|worker)_([A-Za-z0-9:._-]{1,255})_([0-9a-f]{64})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9:._-]{1,255}", re.ASCII)


def mint(kind: Kind, name: str, secret: str) -> str:
    """The one token of this node or worker. Raises ValueError for a name that no token can carry."""
    if not secret:
        raise ValueError("an empty cluster secret mints nothing")
    if kind not in ("node", "worker") or not _NAME.fullmatch(name):
        raise ValueError(f"no token for {kind} {name!r}")
    return f"omni_{kind}_{name}_{_sign(kind, name, secret)}"


def verify(token: str, secret: str) -> tuple[Kind, str] | None:
    """Whose token it is, or None when it is nobody's. Compares in constant time."""
    found = _FORM.fullmatch(token)
    if not found or not secret:
        return None
    kind, name, signature = found.groups()
    if not hmac.compare_digest(signature, _sign(kind, name, secret)):
        return None
    return cast(Kind, kind), name


def _sign(kind: str, name: str, secret: str) -> str:
    return hmac.new(secret.encode(), f"{kind}:{name}".encode(), hashlib.sha256).hexdigest()
