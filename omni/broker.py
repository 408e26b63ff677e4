"""A client of the broker, for who wants to know whether it lives. Work is queued by `releases.relay` alone."""

from __future__ import annotations

from typing import Any

import redis
from django.conf import settings


def client(*, timeout_s: float) -> Any:
    """A client whose every call ends within `timeout_s`, also when the broker is frozen."""
    url = settings.CONFIG.broker
    kwargs: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if url.startswith("redis+socket://"):
        return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://").partition("?")[0], **kwargs)
    return redis.Redis.from_url(url, **kwargs)
