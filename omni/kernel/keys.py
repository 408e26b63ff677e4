"""Where the process gets its keys: from the configuration, else from the files that the first start made.

Owns the reading of `cluster.secret`, `django.key` and `master.key`, and what is derived from the cluster secret. A
management command on a machine that was never started gets random keys that last as long as itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from functools import lru_cache

from omni.kernel import secret_files
from omni.kernel.config import Config


def _given_or_file(config: Config, given: str, name: str) -> str:
    """Raises UnsafeSecretFile for a file that others may read."""
    if given:
        return given
    try:
        return secret_files.read(config.state / name)
    except FileNotFoundError:
        return ""


def cluster_secret(config: Config) -> str:
    """What all members share. Empty before the first start."""
    return _given_or_file(config, config.secrets.cluster.get_secret_value(), "cluster.secret")


def derive(secret: str, purpose: str) -> bytes:
    """A key for one purpose; one purpose's key tells nothing about another's."""
    return hmac.new(secret.encode(), f"omni:{purpose}".encode(), hashlib.sha256).digest()


def cluster_id(config: Config) -> str:
    """The identity that the database is checked against (DECISIONS 29)."""
    return cluster_id_of(cluster_secret(config))


def cluster_id_of(secret: str) -> str:
    """The identity that a cluster secret makes; empty without one."""
    return derive(secret, "cluster-id").hex()[:16] if secret else ""


def django_key(config: Config) -> str:
    """Signs sessions. Separate from the master key."""
    given = _given_or_file(config, config.secrets.django.get_secret_value(), "django.key")
    if given:
        return given
    secret = cluster_secret(config)
    return derive(secret, "django").hex() if secret else _ephemeral("django")


def master_keys(config: Config) -> list[bytes]:
    """Fernet keys for secrets at rest, newest first; `id:key` entries, one a line or comma-separated."""
    given = _given_or_file(config, config.secrets.master.get_secret_value(), "master.key")
    return master_keys_of(given, cluster_secret(config))


def master_keys_of(given: str, secret: str) -> list[bytes]:
    """Those that the text of a master.key holds; without one, what the cluster secret makes."""
    if not given:
        given = derive(secret, "master").hex() if secret else _ephemeral("master")
    entries = [entry.strip() for entry in given.replace("\n", ",").split(",") if entry.strip()]
    return [_fernet(entry.split(":", 1)[-1]) for entry in entries]


def _fernet(text: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())


@lru_cache(maxsize=8)
def _ephemeral(_purpose: str) -> str:
    return secrets.token_hex(32)
