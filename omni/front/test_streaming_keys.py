"""Uploads under one Idempotency-Key: the second is told to wait exactly as long as the first one's body comes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from omni.front.application import Front
from omni.front.intake import Intake
from omni.front.requests import Answer, Request
from omni.front.streaming_keys import StreamingKeys
from omni.front.test_front import request
from omni.kernel.errors import IdempotencyInFlight


def test_a_key_is_held_by_one_upload_at_a_time(tmp_path: Path) -> None:
    first, second = StreamingKeys(tmp_path), StreamingKeys(tmp_path)
    with first.hold("anna:k"):
        with pytest.raises(IdempotencyInFlight), second.hold("anna:k"):
            raise AssertionError("held twice")
        with second.hold("bert:k"), second.hold("anna:l"):
            pass
    with second.hold("anna:k"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_uploads_without_a_key_hold_nothing(tmp_path: Path) -> None:
    keys = StreamingKeys(tmp_path)
    with keys.hold(""), keys.hold(""):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_another_process_holds_it_until_it_dies_and_what_it_left_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from omni.front.streaming_keys import StreamingKeys\n"
        "with StreamingKeys(Path(sys.argv[1])).hold('k'):\n    print('held', flush=True); sys.stdin.read()"
    )
    keys = StreamingKeys(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        keys.sweep()
        with pytest.raises(IdempotencyInFlight), keys.hold("k"):
            raise AssertionError("held twice")
        other.kill()
        other.wait(10)
    assert len(list(tmp_path.iterdir())) == 1
    keys.sweep()
    assert list(tmp_path.iterdir()) == []


class _Django:
    """Judges well, and takes over what comes."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def call(self, asked: Request, body: bytes = b"") -> Answer:
        if asked.extra.get("omni.phase") == "preflight":
            return Answer(204, [("Omni-Key-Scope", asked.headers.get("idempotency-key", ""))])
        self.taken.append(asked.extra["omni.upload"].path.read_bytes())
        return Answer(202, [])


def _front(folder: Path) -> tuple[Front, _Django]:
    front, django = Front(), _Django()
    made = cast(Any, front)
    made._django, made._intake = django, Intake(folder / "incoming", 1000, 5.0)
    made._streaming = StreamingKeys(folder / "uploading")
    return front, django


def _upload(body: list[bytes], key: str) -> Request:
    return request("POST", "/app/web/release/1/upload", body=body, content_type="application/gzip", idempotency_key=key)


def test_the_second_upload_of_a_key_is_refused_only_while_the_first_streams(tmp_path: Path) -> None:
    front, django = _front(tmp_path)

    async def story() -> None:
        more, begun = asyncio.Event(), asyncio.Event()
        slow = _upload([b"a", b"b"], "k")
        receive = slow.receive

        async def receive_slowly() -> dict[str, Any]:
            message = await receive()
            if message.get("body") == b"b":
                begun.set()
                await more.wait()
            return message

        slow.receive = receive_slowly
        first = asyncio.create_task(front._upload(slow))
        await begun.wait()
        with pytest.raises(IdempotencyInFlight) as refused:
            await front._upload(_upload([b"ab"], "k"))
        assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (409, "in_flight", 2)
        assert (await front._upload(_upload([b"cd"], "other"))).status == 202
        more.set()
        assert (await first).status == 202
        assert (await front._upload(_upload([b"ab"], "k"))).status == 202

    asyncio.run(asyncio.wait_for(story(), 20))
    assert django.taken == [b"cd", b"ab", b"ab"]


def test_an_upload_that_breaks_off_gives_its_key_back(tmp_path: Path) -> None:
    front, _ = _front(tmp_path)
    broken = request(
        "POST", "/app/web/release/1/upload", body=[b"a"], gone=True, content_type="application/gzip",
        idempotency_key="k",
    )  # fmt: skip
    with pytest.raises(Exception, match="ended"):
        asyncio.run(front._upload(broken))
    assert asyncio.run(front._upload(_upload([b"ab"], "k"))).status == 202
