"""Debian's Chromium, driven by Playwright, as somebody who works with the console.

Owns logging in, what must never happen on a page (an error, a request to another host, a sideways scroll), the contrast
check, and where pictures go: `OMNI_TEST_SCREENSHOTS`, else `build/console`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.running_platform import PROJECT, Platform, wait_for

Theme = Literal["light", "dark"]
WIDE, NARROW = (1280, 860), (390, 844)
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip
# Every plot has its heading, every log has been read once.
_DRAWN = (
    "[...document.querySelectorAll('[data-plot]')].every(one => one.querySelector('h3')) && "
    "[...document.querySelectorAll('[data-log]')].every(one => one.textContent && one.textContent !== 'Reading…')"
)
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@contextmanager
def chromium() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium here: apt-get install chromium")
    expect.set_options(timeout=20_000)  # a loaded machine is no fault of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


class Operator:
    """One browser window on one member. `troubles` are what no page may have."""

    def __init__(self, browser: Any, base: str, theme: Theme = "light", size: tuple[int, int] = WIDE) -> None:
        self.base = base
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, color_scheme=theme, base_url=base)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.troubles: list[str] = []
        self.page.on("pageerror", lambda error: self.troubles.append(f"{self.page.url}: {error}"))
        self.page.on("console", self._heard)
        self.page.on("request", lambda asked: self._asked(asked.url))
        self.name = f"{theme}-{size[0]}"

    def _heard(self, said: Any) -> None:
        refused = "Failed to load resource" in said.text  # an answer of 4xx or 5xx, which the page deals with
        if said.type in ("error", "warning") and not refused:
            self.troubles.append(f"{self.page.url}: {said.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.base, "data:", "blob:")):
            self.troubles.append(f"{self.page.url} asked {url}")

    def log_in(self, platform: Platform) -> None:
        self.page.goto("/admin/")
        self.page.get_by_label("User").fill("admin")
        self.page.get_by_label("Password").fill((platform.state / "admin.password").read_text().strip())
        self.page.get_by_role("button", name="Log in").click()
        self.page.locator("#live").wait_for()  # the login page has none

    def open(self, path: str) -> None:
        """The page with its plots and logs drawn. Asked from outside: inside, the content policy forbids to wait."""
        self.page.goto(path)
        wait_for(lambda: self.page.evaluate(_DRAWN), f"{path} as a whole", 60)

    def check(self, what: str, pictures: Path) -> None:
        """A picture of the page, no sideways scroll, no finding of axe-core."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{what} ({self.name}) is {wide} px too wide"
        self.page.screenshot(path=pictures / f"{what}-{self.name}.png", full_page=True)
        # by the debugging protocol, which the content policy does not bind
        self.page.evaluate(_axe())
        found = self.page.evaluate("rules => axe.run(document, rules)", _RULES)
        firsts = [(one["id"], one["nodes"][0]) for one in found["violations"]]
        told = [(rule, node["target"], node["failureSummary"]) for rule, node in firsts]
        assert not told, f"{what} ({self.name}): {told}"


def _axe() -> str:
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text()


def pictures_folder() -> Path:
    folder = Path(os.environ.get("OMNI_TEST_SCREENSHOTS") or PROJECT / "build" / "console")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
