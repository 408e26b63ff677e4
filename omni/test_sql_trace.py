"""`highlight_sql`: readable, timed, without values, and absent when off."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.db import connection
from django.http import HttpRequest, HttpResponse

from omni import sql_trace


def test_without_a_terminal_the_middleware_is_not_even_installed(settings: Any) -> None:
    with pytest.raises(MiddlewareNotUsed):
        sql_trace.SqlTraceMiddleware(lambda _request: HttpResponse())


@pytest.mark.django_db(databases=["default", "telemetry"])
def test_each_statement_of_a_request_is_shown_with_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omni.sql_trace.sys.stderr.isatty", lambda: True, raising=False)

    def view(_request: HttpRequest) -> HttpResponse:
        with connection.cursor() as cursor:
            cursor.execute("select id from accounts_org where name = %s", ["hush"])
        return HttpResponse()

    request = HttpRequest()
    request.method, request.path = "GET", "/orgs"
    sql_trace.SqlTraceMiddleware(view)(request)
    shown = capsys.readouterr().err
    assert "GET /orgs" in shown
    assert "1 statements" in shown
    assert "accounts_org" in shown
    assert " ms" in shown
    assert "hush" not in shown
    assert "\033[" in shown


def test_statements_are_laid_out_and_coloured() -> None:
    text = sql_trace.render("GET /x", [("select a, b from t where c = 1", 1.5, "default")])
    assert "SELECT" in text
    assert text.count("\n") > 3
