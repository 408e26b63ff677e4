"""The error tree: every refusal that a caller can see, each with a stable code.

Owns codes, HTTP status and wording of refusals. Must not know HTTP frameworks: `omni.api.problem` turns these into
problem+json, commands print them.

    OmniError
    ├── Malformed 400 · Unauthenticated 401 · Forbidden 403 · NotFound 404 · Gone 410
    ├── Conflict 409 (TransitionRefused, IdempotencyInFlight) · StaleRevision 412
    ├── TooLarge 413 · UnsupportedMedia 415 · InvalidInput 422 · TooManyRequests 429
    ├── NotLeader / NoLeader 503 · DatabaseUnavailable 503 · StaleRead 503 · StorageFull 507
    └── OutcomeUnknown 504
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["applied", "not-applied", "unknown"]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One mistake in the input. `pointer` is a JSON pointer (`/env/FOO`) or `?name` for a query parameter."""

    pointer: str
    code: str
    detail: str


class OmniError(Exception):
    """A refusal with a stable `code`. `next` names the call or command that helps."""

    status = 500
    code = "internal_error"
    title = "Internal error"
    outcome: Outcome = "not-applied"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        next: str | None = None,
        errors: list[FieldError] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        if code is not None:
            self.code = code
        self.next = next
        self.errors = errors or []
        self.retry_after_s = retry_after_s


class Malformed(OmniError):
    status, code, title = 400, "malformed", "The request could not be read"


class Unauthenticated(OmniError):
    status, code, title = 401, "unauthenticated", "Credentials are missing or not valid"


class Forbidden(OmniError):
    status, code, title = 403, "forbidden", "This token may not do that"


class NotFound(OmniError):
    status, code, title = 404, "not_found", "Not found"


class Conflict(OmniError):
    status, code, title = 409, "conflict", "The object's state does not allow that"


class TransitionRefused(Conflict):
    """The row was not in the state that the transition starts from; `actual` is what it was."""

    code, title = "transition_refused", "The object's state does not allow that"

    def __init__(self, noun: str, wanted: str, actual: str | None) -> None:
        was = "gone" if actual is None else actual
        super().__init__(f"The {noun} is {was} and cannot become {wanted}.")
        self.wanted = wanted
        self.actual = actual


class IdempotencyInFlight(Conflict):
    """The first request with this Idempotency-Key is still sending its body."""

    code, title = "in_flight", "A request with this Idempotency-Key is under way"

    def __init__(self) -> None:
        super().__init__(
            "The first upload with this Idempotency-Key is still under way.",
            retry_after_s=2,
            next="repeat the request with the same key when the first one has ended",
        )


class StaleRevision(OmniError):
    status, code, title = 412, "stale_revision", "The object has changed since you read it"


class TooLarge(OmniError):
    status, code, title = 413, "too_large", "The body is too large"


class UnsupportedMedia(OmniError):
    status, code, title = 415, "unsupported_media_type", "The body's type is not supported"


class InvalidInput(OmniError):
    status, code, title = 422, "invalid", "Some fields are not valid"


class Gone(OmniError):
    status, code, title = 410, "index_too_old", "That index is no longer kept"


class TooManyRequests(OmniError):
    status, code, title = 429, "too_many_requests", "Too many requests"


class NoLeader(OmniError):
    """Nobody may write at this moment; nothing happened."""

    status, code, title = 503, "no_leader", "No leader can take this write at the moment"

    def __init__(self, detail: str = "", *, retry_after_s: int = 2) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, next="repeat the request")


class NotLeader(NoLeader):
    """This member does not hold the lease (any more); the transaction was rolled back."""

    def __init__(self, leader: str | None = None) -> None:
        super().__init__("This member is not the leader; nothing was changed.", retry_after_s=1)
        self.leader = leader


class DatabaseUnavailable(OmniError):
    status, code, title = 503, "database_unavailable", "The database does not answer"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after_s=5, next="GET /health")


class StaleRead(OmniError):
    status, code, title = 503, "stale_read", "This member has not seen that index yet"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, retry_after_s=1)


class StorageFull(OmniError):
    status, code, title = 507, "storage_full", "There is no space left"


class OutcomeUnknown(OmniError):
    status, code, title = 504, "outcome_unknown", "The write may or may not have been applied"
    outcome: Outcome = "unknown"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, next="repeat the request with the same Idempotency-Key")
