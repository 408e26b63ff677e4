"""Which Idempotency-Keys have an upload on its way to this member: a second one is told 409 meanwhile (DECISIONS 8).

Owns one lock file for each such key, so that all web processes of the member agree; the kernel drops the lock of a
process that dies. Knows nothing of stored answers: once the body has come, Django replays those.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni.kernel.errors import IdempotencyInFlight


@dataclass(frozen=True, slots=True)
class StreamingKeys:
    """`folder` is the member's own: another member on this host may be the next leader, and knows nothing of ours."""

    folder: Path

    def sweep(self) -> None:
        """Remove what killed processes left."""
        for path in self.folder.glob("*.key"):
            with contextlib.suppress(IdempotencyInFlight):
                descriptor = self._lock(path)
                path.unlink(missing_ok=True)
                os.close(descriptor)

    @contextlib.contextmanager
    def hold(self, scope: str) -> Iterator[None]:
        """Claim a key (`scope` tells principal and key) for as long as its body comes. Raises IdempotencyInFlight.

        Without a key there is nothing to claim.
        """
        if not scope:
            yield
            return
        path = self.folder / f"{hashlib.sha256(scope.encode()).hexdigest()}.key"
        descriptor = self._lock(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _lock(self, path: Path) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise IdempotencyInFlight from None
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # its holder removed it between our opening and our locking


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
