"""`highlight_sql`: each request's SQL, pretty-printed and coloured with timings, on the node's log.

Owns the printing. Costs nothing when off: the middleware is not even installed unless the configuration says so, and
records nothing unless a terminal is attached or `--sql` was given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import connections
from django.http import HttpRequest, HttpResponse


@dataclass(slots=True)
class _Trace:
    statements: list[tuple[str, float, str]] = field(default_factory=list)

    def wrapper(self, alias: str) -> Callable[..., Any]:
        def record(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
            started = time.perf_counter()
            try:
                return execute(sql, params, many, context)
            finally:
                self.statements.append((sql, (time.perf_counter() - started) * 1000, alias))

        return record


class SqlTraceMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if not (settings.CONFIG.sql or sys.stderr.isatty()):
            raise MiddlewareNotUsed
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        trace = _Trace()
        with ExitStack() as stack:
            for connection in connections.all():
                stack.enter_context(connection.execute_wrapper(trace.wrapper(connection.alias)))
            response = self._get_response(request)
        if trace.statements:
            sys.stderr.write(render(f"{request.method} {request.path}", trace.statements))
        return response


def render(title: str, statements: list[tuple[str, float, str]]) -> str:
    """The statements of one request, coloured for a terminal. Values are never shown: they may be secrets."""
    import sqlparse
    from pygments import highlight
    from pygments.formatters import TerminalFormatter
    from pygments.lexers import SqlLexer

    total = sum(took for _, took, _ in statements)
    lines = [f"\033[1m{title}\033[0m  {len(statements)} statements, {total:.1f} ms\n"]
    for sql, took, alias in statements:
        pretty = sqlparse.format(sql, reindent=True, keyword_case="upper")
        lines.append(f"\033[2m{took:8.2f} ms  {alias}\033[0m\n{highlight(pretty, SqlLexer(), TerminalFormatter())}")
    return "".join(lines)
