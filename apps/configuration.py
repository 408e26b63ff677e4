"""An app's environment: sealed at rest, secret values never read back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

from apps.models import App, ConfigRevision
from omni.kernel.seal import unseal

# The columns of an app that shape a running instance: changing one is a deployment, rolling back restores them.
CONFIG_FIELDS = ("memory_mb", "cpu", "cpu_limit", "health_check", "restart_policy", "stop_timeout_s",
                 "process_settings")  # fmt: skip


def open_env(revision: ConfigRevision) -> dict[str, str]:
    """The plain environment. Only for whoever starts an instance, and for merging."""
    return cast(dict[str, str], unseal(revision.env))


def merge_env(
    current: dict[str, str], secret_keys: list[str], patch: dict[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """The environment after a merge patch; pure. `null` removes, `{"secret": true}` without a value keeps."""
    env, secret = dict(current), set(secret_keys)
    for key, value in patch.items():
        if value is None:
            env.pop(key, None)
            secret.discard(key)
        elif isinstance(value, dict):
            if value.get("value") is not None:
                env[key] = value["value"]
            if key in env:
                (secret.add if value.get("secret", True) else secret.discard)(key)
        else:
            env[key] = value
            secret.discard(key)
    return env, sorted(secret)


def shown_env(revision: ConfigRevision) -> dict[str, Any]:
    """The environment as the API shows it: a secret is `{"secret": true}`."""
    return masked(open_env(revision), revision.secret_keys)


def current_env(app: App) -> dict[str, Any]:
    """`shown_env` of the app's current configuration; a revision never changes, so it is kept in this process."""
    return _shown_of(app.pk, app.config_number)


@lru_cache(maxsize=5_000)
def _shown_of(app_id: int, number: int) -> dict[str, Any]:
    return shown_env(ConfigRevision.objects.get(app_id=app_id, number=number))


def forget() -> None:
    """Between tests, which use the same ids again."""
    _shown_of.cache_clear()


def masked(env: dict[str, str], secret_keys: list[str]) -> dict[str, Any]:
    """`env` with each secret value covered; pure."""
    return {key: {"secret": True} if key in secret_keys else value for key, value in sorted(env.items())}
