"""Signed webhooks: the form of the Standard Webhooks convention, so that receivers find a library that verifies it.

    webhook-id         the message's id, the same with every try: receivers drop what they have had
    webhook-timestamp  seconds since the epoch, of this try: receivers refuse what is too old
    webhook-signature  `v1,` + base64(HMAC-SHA256(secret, "<id>.<timestamp>.<body>"))

Owns signing and what an answer means. Delivery is at least once; keeping what is still to be sent is the caller's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

import orjson

from omni.kernel import clock
from omni.outgoing import http
from sandbox.addresses import AddressPolicy

TIMEOUT_S = 10.0
SECRET_PREFIX = "whsec_"  # noqa: S105 - the convention's mark of a secret
_FINAL = frozenset({410})  # the receiver says: never again
_SAID = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`secret` as the receiver has it: `whsec_` + base64, or any text."""

    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is unique for what it tells and stays the same with every try."""

    id: str
    type: str  # "alert.opened"
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`final`: another try cannot help. `detail` says in a few words what happened."""

    delivered: bool
    final: bool
    status: int | None
    detail: str


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = hmac.new(_key(secret), f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


def body_of(message: Message) -> bytes:
    return orjson.dumps({"id": message.id, "type": message.type, "data": message.data})


def deliver(
    endpoint: Endpoint, message: Message, *, policy: AddressPolicy | None = None, timeout_s: float = TIMEOUT_S
) -> Outcome:
    """One try. Never raises for what the other side does; 2xx is delivered, a redirect is not followed."""
    body, at = body_of(message), int(clock.now().timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "omni-webhooks",
        "webhook-id": message.id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature(endpoint.secret, message.id, at, body),
    }
    try:
        answer = http.send(http.Call("POST", endpoint.url, headers, body), timeout_s, policy=policy)
    except http.CallFailed as error:
        return Outcome(False, error.refused, None, str(error)[:_SAID])
    if 200 <= answer.status < 300:
        return Outcome(True, True, answer.status, f"answered {answer.status}")
    if 300 <= answer.status < 400:
        return Outcome(False, False, answer.status, f"answered {answer.status}; redirects are not followed")
    said = answer.body[:100].decode("utf-8", "replace").strip()
    return Outcome(False, answer.status in _FINAL, answer.status, f"answered {answer.status} {said}".strip()[:_SAID])


def _key(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
