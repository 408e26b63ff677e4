"""Secrets at rest: sealed with the master key, opened only where they are used.

Owns the one way in which a secret enters the database. Fernet (AES-128-CBC + HMAC-SHA256) from `cryptography`; the
master key file holds one key a line, the first seals, all open, so a key is rotated by putting a new line on top.
"""

from __future__ import annotations

from functools import lru_cache

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class SealBroken(Exception):
    """The value was sealed with a key that is no longer in the master key file, or was changed."""


@lru_cache(maxsize=1)
def _keys() -> MultiFernet:
    from django.conf import settings

    return MultiFernet([Fernet(key) for key in settings.OMNI_MASTER_KEYS])


def seal(value: object) -> str:
    """Any JSON value, encrypted."""
    keys = _keys()
    return _sealed_nothing(keys) if value == {} else keys.encrypt(orjson.dumps(value)).decode()


@lru_cache(maxsize=1)
def _sealed_nothing(keys: MultiFernet) -> str:
    """`{}`, once per process: most apps have no environment when they are made, and the length says so anyway."""
    return keys.encrypt(orjson.dumps({})).decode()


def unseal(sealed: str) -> object:
    """The value again. Raises SealBroken."""
    try:
        return orjson.loads(_keys().decrypt(sealed.encode()))
    except InvalidToken as broken:
        raise SealBroken("a sealed value cannot be opened with the keys in master.key") from broken
