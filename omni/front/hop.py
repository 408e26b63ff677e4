"""The signed header of a forwarded request: who asked first, and that it has been forwarded once.

Owns its form. The key follows from the cluster secret, so that nobody outside can claim another's address. Whoever
sends the header at all is never forwarded again: a loop must end also where clocks or secrets differ.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass, field

from omni.front.requests import Request

HEADER = "omni-forwarded"
MAX_AGE_S = 30.0
_NONCES = 20_000


@dataclass(slots=True)
class Hop:
    """Signs a forwarded request, and verifies one that came in."""

    key: bytes
    member: str
    _seen: dict[str, float] = field(default_factory=dict)

    def sign(self, request: Request) -> str:
        now, nonce = f"{time.time():.3f}", secrets.token_hex(8)
        return ";".join([self.member, request.client, now, nonce, self._mac(request, request.client, now, nonce)])

    def verify(self, request: Request, value: str) -> str | None:
        """The original client's address; None for a header that is forged, old, or was used before."""
        parts = value.split(";")
        if len(parts) != 5:
            return None
        member, client, at, nonce, mac = parts
        expected = self._mac(request, client, at, nonce, member)
        if not hmac.compare_digest(mac.encode(), expected.encode()):  # as bytes: text must be ASCII
            return None
        if abs(time.time() - float(at)) > MAX_AGE_S or nonce in self._seen:
            return None
        if len(self._seen) >= _NONCES:
            self._seen = {key: when for key, when in self._seen.items() if when > time.time() - MAX_AGE_S}
        self._seen[nonce] = time.time()
        return client

    def _mac(self, request: Request, client: str, at: str, nonce: str, member: str = "") -> str:
        text = "\n".join([member or self.member, request.method, request.path, request.query, client, at, nonce])
        return hmac.new(self.key, text.encode(), "sha256").hexdigest()
