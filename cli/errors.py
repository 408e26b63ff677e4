"""How a command fails, and its exit code: 0 done, 1 failed, 2 wrong usage, 3 the thing asked about is unhealthy."""

from __future__ import annotations

from typing import Any

FAILED, USAGE, UNHEALTHY = 1, 2, 3


class CommandError(Exception):
    """One plain sentence for people, and what to do next when that is known."""

    def __init__(self, detail: str, *, next_step: str = "", exit_code: int = FAILED) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step
        self.exit_code = exit_code

    def as_json(self) -> dict[str, Any]:
        return {"code": "command_failed", "detail": self.detail, "next": self.next_step}


class ProblemError(CommandError):
    """The server refused: its problem document (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
        super().__init__(detail, next_step=str(problem.get("next") or ""))
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or "")

    def as_json(self) -> dict[str, Any]:
        return self.problem
