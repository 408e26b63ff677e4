"""An app with a single instance is restarted, updated and rolled back, one right after the other: no request fails."""

from __future__ import annotations

import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, Platform, archive

pytestmark = [pytest.mark.story, pytest.mark.slow]


def test_a_single_instance_is_replaced_without_a_failed_request(platform: Platform) -> None:
    api = platform.api(1)
    name = "single"
    app = api.create(name)
    assert api.built(name, "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy(name, 1, "1")
    platform.answers(app)
    with RequestLoop(platform, app) as loop:
        assert api.built(name, "2", archive(EXAMPLES / "hello", n__txt="2"))["status"] == "succeeded"
        api.healthy(name, 1, "2")
        assert api.ended(api.ok("POST", f"/app/{name}/restart"))["status"] == "succeeded"
        assert api.ended(api.ok("POST", f"/app/{name}/rollback"))["status"] == "succeeded"
        api.ok("POST", f"/app/{name}/restart")
        api.ok("POST", f"/app/{name}/rollback", {"version": "1"})
        assert api.ended(api.ok("POST", f"/app/{name}/restart"))["status"] == "succeeded"
    assert loop.failures == []
    assert len(loop.answers) > 50
