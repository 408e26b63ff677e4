"""The console left open, hidden, and used without a mouse, in a real browser."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Operator, chromium
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]

_HIDE = (
    "hidden => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});"
    " document.dispatchEvent(new Event('visibilitychange')); }"
)
# What the page does by itself every few seconds, as often as it would in an hour with the tab in sight.
_AGAIN = (
    "async times => { const address = document.querySelector('script[type=module]').src;"
    " const { refresh } = await import(address); for (let at = 0; at < times; at++) await refresh(); }"
)
_ROUNDS = 1_200  # an hour at one every three seconds
_MOST_BYTES = 2 << 20


def _app(platform: Platform, name: str) -> dict[str, Any]:
    api = platform.api(platform.leader())
    if api("GET", f"/app/{name}/info").status_code == 404:
        api.create(name, instances=2)
        api.built(name, "1", archive(EXAMPLES / "hello"))
    return api.healthy(name, 2, "1")


def _kept(page: Page) -> tuple[int, int, int]:
    """Nodes, listeners and bytes that are still reachable after a collection."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.enable")
    devtools.send("HeapProfiler.collectGarbage")
    counts = devtools.send("Memory.getDOMCounters")
    used = devtools.send("Runtime.getHeapUsage")["usedSize"]
    devtools.detach()
    return int(counts["nodes"]), int(counts["jsEventListeners"]), int(used)


def test_an_hour_open_leaks_nothing_also_through_a_change_of_leader(tmp_path: Path) -> None:
    platform = Platform.prepared(tmp_path)
    platform.start()
    try:
        app = _app(platform, "steady")
        with chromium() as browser:
            operator = Operator(browser, platform.members[platform.followers()[0]])
            operator.log_in(platform)
            page = operator.page
            operator.open(f"/admin/app/{app['id']}/")
            page.evaluate(_AGAIN, 50)
            nodes, listeners, used = _kept(page)
            page.evaluate(_AGAIN, _ROUNDS // 2)
            os.killpg(platform.supervisor(platform.leader()), signal.SIGKILL)
            expect(page.locator(".sentence")).to_contain_text("2 of 2 healthy", timeout=90_000)
            page.evaluate(_AGAIN, _ROUNDS // 2)
            after = _kept(page)
            assert after[0] <= nodes * 1.1 + 200, f"{nodes} nodes became {after[0]}"
            assert after[1] <= listeners + 20, f"{listeners} listeners became {after[1]}"
            assert after[2] <= used + _MOST_BYTES, f"{used} bytes became {after[2]}"
            expect(page.locator("#pulse")).to_have_text("", timeout=60_000)
            assert operator.troubles == []
    finally:
        platform.stop()


def test_a_tab_that_nobody_looks_at_asks_for_nothing(platform: Platform) -> None:
    app = _app(platform, "hidden")
    with chromium() as browser:
        operator = Operator(browser, platform.members[0])
        operator.log_in(platform)
        page, asked = operator.page, list[str]()
        page.clock.install()
        operator.open(f"/admin/app/{app['id']}/")
        page.evaluate(_HIDE, True)
        page.wait_for_load_state("networkidle")
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(60_000)
        assert asked == []
        page.evaluate(_HIDE, False)
        page.clock.run_for(20_000)
        wait_for(lambda: any(url.endswith(f"/admin/app/{app['id']}/") for url in asked), "the page itself again")
        assert any("/admin/data/" in url for url in asked)
        assert any("/logs" in url for url in asked)


def _tab_to(page: Page, what: str, most: int = 60) -> None:
    """Press Tab until the focused element is the one; each on the way must be seen to have the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        text, seen = page.evaluate(
            "() => { const one = document.activeElement, style = getComputedStyle(one);"
            " const name = one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent || '';"
            " const ring = style.outlineStyle !== 'none' || one.closest('.find:focus-within') !== null;"
            " return [name.trim(), one === document.body || ring]; }"
        )
        assert seen, f"{text!r} has the focus and does not show it"
        if text == what:
            return
    raise AssertionError(f"{what!r} is not reached by {most} presses of Tab")


def test_the_keyboard_alone_is_enough(platform: Platform) -> None:
    _app(platform, "typed")
    with chromium() as browser:
        operator = Operator(browser, platform.members[0])
        page = operator.page
        page.goto("/admin/")
        page.keyboard.type("admin")  # the first field has the focus
        page.keyboard.press("Tab")
        page.keyboard.type((platform.state / "admin.password").read_text().strip())
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()  # past the bar and the ways
        page.keyboard.press("/")
        page.keyboard.type("typed")
        page.keyboard.press("Enter")
        page.wait_for_url("**/admin/app/?q=typed")
        _tab_to(page, "typed")
        page.keyboard.press("Enter")
        expect(page.locator(".sentence")).to_contain_text("2 of 2 healthy.")
        _tab_to(page, "Restart slot 0", most=80)
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Restart slot 0 in place?")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Restart slot 0"
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name="Restart it")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#toasts")).to_contain_text("Slot 0 restarts.")
        assert operator.troubles == []


def test_ones_own_password_is_changed_and_asked_for_from_then_on(platform: Platform) -> None:
    api = platform.api(platform.leader())
    api.ok("POST", "/orgs/default/members", {"user": "ines", "role": "viewer", "password": "the first one, long"})
    with chromium() as browser:
        operator = Operator(browser, platform.members[platform.followers()[0]])
        page = operator.page

        def log_in(password: str) -> None:
            page.goto("/admin/")
            page.get_by_label("User").fill("ines")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()

        log_in("the first one, long")
        page.get_by_label("Account of ines").click()
        page.get_by_role("link", name="Account and password").click()
        page.get_by_label("Present password").fill("the first one, long")
        page.get_by_label("New password").fill("another, also long")
        page.get_by_label("The new one again").fill("another, also long")
        page.get_by_role("button", name="Change it").click()
        expect(page.locator(".said")).to_contain_text("Your password is changed.")
        page.get_by_label("Account of ines").click()
        page.get_by_role("button", name="Log out").click()
        log_in("the first one, long")
        expect(page.get_by_role("alert")).to_be_visible()
        log_in("another, also long")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert operator.troubles == []
