"""An upload and its build end exactly once, wherever the leader dies on the way."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.cluster.conftest import UnderLoad
from tests.cluster.lab import Lab
from tests.cluster.nodes import LabNode
from tests.running_platform import EXAMPLES, Api, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(
    "point", ["after_blob_fsync_before_row", "after_publish_before_mark", "build_done_before_commit"]
)
def test_a_build_ends_once_although_the_leader_died(lab: Lab, seed: int, under_load: UnderLoad, point: str) -> None:
    with under_load():
        leader = lab.wait_for_leader()
        follower = next(node for node in lab.nodes if node is not leader)
        name = f"b{point.count('_')}{point[0]}-{seed}"
        Api(follower.url, lab.token).create(name, memory_mb=32)
        leader.arm(point, "killnode")
        uploaded = _upload(lab, follower, name)
        wait_for(lambda: not leader.alive, f"the leader's death at {point}", 60)
        leader.start()
        ended = wait_for(lambda: _ended(lab, follower, uploaded), "the build's end", 120, every_s=0.3)
        assert ended["status"] == "succeeded"
        releases = Api(follower.url, lab.token).ok("GET", f"/app/{name}/releases")["items"]
        assert [release["version"] for release in releases] == ["1"]


def _upload(lab: Lab, node: LabNode, name: str) -> str:
    """Repeated under one key until it is taken; the path of its build."""
    headers = {
        "Authorization": f"Bearer {lab.token}",
        "Content-Type": "application/gzip",
        "Idempotency-Key": f"upload-{name}",
    }
    data, deadline = archive(EXAMPLES / "hello"), time.monotonic() + 60
    last = ""
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(
                f"{node.url}/app/{name}/release/1/upload?deploy=false", content=data, headers=headers, timeout=20,
                trust_env=False,
            )  # fmt: skip
        except httpx.HTTPError as error:
            last = repr(error)
        else:
            last = f"{answer.status_code} {answer.text[:300]}"
            if answer.status_code in (200, 202):
                return str(answer.json()["links"]["self"])
        time.sleep(0.3)
    raise AssertionError(f"the upload was never taken; last: {last}")


def _ended(lab: Lab, node: LabNode, path: str) -> dict[str, str] | None:
    answer = lab.get(node, path, 5.0)
    if answer is None or answer.status_code != 200:
        return None
    build: dict[str, str] = answer.json()
    return build if build["status"] in ("succeeded", "failed", "cancelled") else None
