"""Who reads a refusal of the front as a page, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from omni.front import problems
from omni.front.requests import Request
from omni.kernel.errors import NoLeader, OutcomeUnknown

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


def asked(path: str, method: str = "POST", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def nothing() -> dict[str, Any]:
        return {}

    return Request(method, path, "", named, "127.0.0.1", "http", ("a", 1), nothing)


@pytest.mark.parametrize(
    ("request_", "page"),
    [
        (asked("/admin/do/scale/", accept=BROWSER), True),
        (asked("/admin/", "GET", accept=BROWSER, sec_fetch_mode="navigate"), True),
        (asked("/admin/do/scale/", accept=BROWSER, sec_fetch_mode="cors"), False),
        (asked("/admin/do/scale/", accept="*/*"), False),
        (asked("/app/create", accept=BROWSER), False),
    ],
)
def test_a_browser_that_opens_a_page_or_sends_a_form_is_told_in_a_page(request_: Request, page: bool) -> None:
    assert problems.is_page(request_) is page


def test_the_page_says_whether_anything_was_done() -> None:
    sent = problems.page(NoLeader("An election runs."), "n1", asked("/admin/do/scale/"), "req_1")
    text = sent.body.decode()
    assert (sent.status, sent.header("content-type")) == (503, "text/html; charset=utf-8")
    assert sent.header("retry-after")
    assert "Nothing was changed" in text
    assert "An election runs." in text
    assert "req_1" in text
    read = problems.page(NoLeader("An election runs."), "n1", asked("/admin/", "GET")).body.decode()
    assert "Load this page again" in read
    unknown = problems.page(OutcomeUnknown("It broke."), "n1", asked("/admin/do/scale/")).body.decode()
    assert "It is not known whether this was done" in unknown
