"""The console as an operator uses it, in a real browser on a member that does not lead."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser import NARROW, WIDE, Operator, Theme, chromium, pictures_folder
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


def test_a_newcomer_reads_scales_deploys_and_rolls_back(platform: Platform) -> None:
    name, pictures = "seen", pictures_folder()
    api = platform.api(platform.leader())
    app = api.create(name, env={"TOKEN": {"value": "hush-hush", "secret": True}})
    assert api.built(name, "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    assert api.built(name, "2", archive(EXAMPLES / "hello", note__txt="2"), "?deploy=false")["status"] == "succeeded"
    api.healthy(name, 1, "1")
    with chromium() as browser:
        operator = Operator(browser, platform.members[platform.followers()[0]])
        operator.log_in(platform)
        page = operator.page
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.get_by_role("searchbox", name="Find an app").fill(name)
        page.keyboard.press("Enter")
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator(".sentence")).to_contain_text("1 of 1 healthy.")
        expect(page.locator("#app-log")).to_contain_text("listening on port")

        page.get_by_label("Wanted").fill("2")
        page.get_by_role("button", name="Scale").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Slot 1 of version 1 starts on")
        operator.check("scale", pictures)
        dialog.get_by_role("button", name="Scale").click()
        expect(page.locator("#toasts")).to_contain_text(f"{name} is to have 2 instances.")
        expect(page.locator(".sentence")).to_contain_text("2 of 2 healthy.", timeout=30_000)

        page.get_by_role("link", name="Releases").click()
        page.get_by_role("button", name="Deploy it").click()
        page.get_by_role("dialog").get_by_role("button", name="Deploy").click()
        api.healthy(name, 2, "2")
        row = page.locator("tr", has_text="runs")
        expect(row.locator("td").nth(1)).to_have_text("2", timeout=15_000)

        page.get_by_role("button", name="Roll back", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.locator("#toasts")).to_contain_text("goes back to what ran before.")
        api.healthy(name, 2, "1")
        page.goto(f"/admin/app/{app['id']}/config/")
        assert "hush-hush" not in page.content()
        operator.check("configuration", pictures)
        assert operator.troubles == []


def _paths(platform: Platform) -> dict[str, str]:
    """One of each page, of a platform with an app that runs and one that crashes."""
    api = platform.api()
    app, crash = api.info("looks"), api.info("breaks")
    new, service = api.info("empty"), api.ok("GET", "/services")["items"][0]["id"]
    base, other = f"/admin/app/{app['id']}/", f"/admin/app/{crash['id']}/"
    build = api.ok("GET", "/app/looks/builds")["items"][0]["id"]
    instance = api.ok("GET", "/app/breaks/instances?status=all")["items"][0]["id"]
    node = api.ok("GET", "/nodes")["items"][0]["id"]
    return {
        "overview": "/admin/", "apps": "/admin/app/", "app": base, "app-crashed": other, "app-log": f"{base}logs/",
        "releases": f"{base}releases/?from=1&to=2", "builds": f"{base}builds/", "build": f"{base}builds/{build}/",
        "deployments": f"{base}deployments/", "deployment-failed": f"{other}deployments/{crash['deployment']['id']}/",
        "instance": f"{other}instances/{instance}/", "config": f"{base}config/", "app-events": f"{base}events/",
        "nodes": "/admin/nodes/", "node": f"/admin/nodes/{node}/", "cluster": "/admin/cluster/",
        "events": "/admin/events/", "orgs": "/admin/orgs/", "org": "/admin/orgs/default/", "tokens": "/admin/tokens/",
        "services": "/admin/service/", "service": f"/admin/service/{service}/", "service-new": "/admin/service/new/",
        "alerts": "/admin/alerts/", "silences": "/admin/silences/", "account": "/admin/account/",
        "app-new": f"/admin/app/{new['id']}/", "events-none": "/admin/events/?q=nothing-like-it",
        "tables": "/admin/tables/", "table": "/admin/instances/instance/",
        "row": f"/admin/apps/app/{app['id']}/change/", "nothing": "/admin/app/4711/",
    }  # fmt: skip


def _questions(platform: Platform) -> list[tuple[str, str, str]]:
    """What is asked before something is done: the picture's name, the page, the button."""
    api = platform.api()
    app, node = api.info("looks")["id"], api.ok("GET", "/nodes")["items"][0]["id"]
    return [
        ("ask-delete", f"/admin/app/{app}/", "Delete"), ("ask-drain", f"/admin/nodes/{node}/", "Drain"),
        ("ask-rollback", f"/admin/app/{app}/releases/", "Roll back to it"),
        ("ask-transfer", "/admin/cluster/", "Hand over the leadership"),
        ("refused-config", f"/admin/app/{app}/config/", "Look at the change"),
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)])
def test_every_page_is_readable(platform: Platform, theme: Theme, size: tuple[int, int]) -> None:
    """No finding of axe-core (contrast among them), nothing too wide, no error, nothing from another host."""
    pictures, api = pictures_folder(), platform.api()
    if api("GET", "/app/looks/info").status_code == 404:
        api.create("looks", instances=2)
        api.built("looks", "1", archive(EXAMPLES / "hello"))
        api.healthy("looks", 2, "1")
        api.ended(api.ok("PATCH", "/app/looks", {"env": {"COLOUR": "blue"}})["deployment"])
        api.create("breaks")
        api.built("breaks", "1", archive(EXAMPLES / "crash"))
        wait_for(lambda: api.info("breaks")["status"] == "crashed", "the crash")
        api.create("empty")
        wait_for(lambda: api.ok("GET", "/services")["items"], "the platform's own services")
    with chromium() as browser:
        operator = Operator(browser, platform.members[0], theme, size)
        operator.log_in(platform)
        for name, path in _paths(platform).items():
            operator.open(path)
            operator.check(name, pictures)
        for name, path, button in _questions(platform):
            operator.open(path)
            operator.page.get_by_role("button", name=button).first.click()
            operator.page.get_by_role("dialog").wait_for()
            operator.check(name, pictures)
        assert operator.troubles == []


@pytest.mark.long
def test_an_open_page_survives_the_death_of_the_leader(tmp_path: Path) -> None:
    platform = Platform.prepared(tmp_path)
    platform.start()
    try:
        api = platform.api(platform.leader())
        app = api.create("steady", instances=2)
        api.built("steady", "1", archive(EXAMPLES / "hello"))
        api.healthy("steady", 2, "1")
        leader = platform.leader()
        with chromium() as browser:
            operator = Operator(browser, platform.members[platform.followers()[0]])
            operator.log_in(platform)
            page = operator.page
            page.goto(f"/admin/app/{app['id']}/")
            page.get_by_label("Wanted").fill("3")
            page.get_by_role("button", name="Scale").click()
            expect(page.get_by_role("dialog")).to_contain_text("Run 3 instances")
            os.killpg(platform.supervisor(leader), signal.SIGKILL)
            page.get_by_role("dialog").get_by_role("button", name="Scale").click()
            expect(page.locator("#toasts")).to_contain_text("steady is to have 3 instances.", timeout=30_000)
            expect(page.locator(".sentence")).to_contain_text("3 of 3 healthy.", timeout=90_000)
            dead = platform.members[leader].removeprefix("http://")
            page.goto("/admin/cluster/")
            expect(page.locator("tr", has_text=dead).first).to_contain_text("no")
            assert operator.troubles == []
    finally:
        platform.stop()
