"""A custom domain from its first mention to its first request: named, proven by a TXT record, served, removed."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from omni.testing.dns_server import DnsServer
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = pytest.mark.story
NAME = "shop.example.org"


def test_a_custom_domain_is_served_by_the_ingress_once_it_is_proven(tmp_path: Path) -> None:
    with DnsServer() as dns:
        domains = {"resolvers": dns.address, "query_timeout_s": 1.0}
        platform = Platform.prepared(tmp_path, members=1, domains=domains).start()
        try:
            _story(platform, dns)
        finally:
            platform.stop()


def _story(platform: Platform, dns: DnsServer) -> None:
    api = platform.api()
    app = api.create("web", domains=[NAME])
    api.built("web", "1", archive(EXAMPLES / "hello"))
    api.healthy("web", 1)

    def ask() -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{platform.config['ingress']['port']}/", headers={"Host": NAME}, timeout=10)

    platform.answers(app)
    wait_for(lambda: api.info("web")["custom_domains"][0]["problem"], "a first look at the DNS")
    assert (ask().status_code, ask().json()["code"]) == (404, "unknown_host")
    record = app["custom_domains"][0]["record"]
    dns.records[record["name"]] = [record["value"]]
    wait_for(lambda: api.info("web")["custom_domains"][0]["status"] == "verified", "the proof", 30)
    answer = wait_for(lambda: (got := ask()).status_code == 200 and got, "the domain to be served", 15)
    assert answer.json()["app"] == "web"
    assert any(NAME in url for url in api.info("web")["urls"])
    api.ok("PATCH", "/app/web", {"domains": []})
    wait_for(lambda: ask().status_code == 404, "the removed domain to be unknown", 15)
