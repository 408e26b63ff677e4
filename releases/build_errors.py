"""Who is to blame when a build does not succeed, as types.

BuildEnded
├ BuildFailed     the upload or its commands: outcome "failed" with a code that the user can act upon
└ BuildStopped    nobody: the user cancelled, or another worker has the build now

Anything else that a pipeline raises is the platform's own fault (`internal_error`).
"""

from __future__ import annotations

from typing import Literal

StopReason = Literal["cancelled", "lease_lost"]


class BuildEnded(Exception):
    """The pipeline goes no further."""


class BuildFailed(BuildEnded):
    """`code` is stable and snake_case, `detail` one or two sentences that say what to change."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class BuildStopped(BuildEnded):
    """Somebody else decided that this attempt is over."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason
