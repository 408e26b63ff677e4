"""The form of API tokens, and how they are found again. The secret is 256 random bits; only its sha256 is kept.

omni_<8 characters to recognise it by>_<43 characters of base64url>
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass

_ALPHABET = string.ascii_lowercase + string.digits
_FORM = re.compile(r"omni_[a-z0-9]{8}_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token at the one moment when its secret is known."""

    secret: str
    prefix: str
    digest: str


def mint() -> NewToken:
    prefix = "omni_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return read(f"{prefix}_{secrets.token_urlsafe(32)}")


def read(secret: str) -> NewToken:
    """Raises ValueError when `secret` does not have the form of a token."""
    if not _FORM.fullmatch(secret):
        raise ValueError("not an API token")
    return NewToken(secret, secret[:13], digest(secret))


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
