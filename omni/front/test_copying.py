"""Copies between hosts: three hosts, each with a directory of its own, that talk to each other by HTTP."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from omni.front.copying import Copying, missing
from omni.front.intake import Intake, Upload
from omni.front.problems import answer as problem
from omni.front.requests import Answer, Receive, Request, Scope, Send
from omni.front.test_front import request
from omni.kernel.errors import NotFound, OmniError
from releases.content_directory import ContentDirectory
from releases.copies import CopiesUnavailable, Others
from releases.storage import ArtifactStore

DATA = os.urandom(3 << 20)
SHA = hashlib.sha256(DATA).hexdigest()
KEY = "k" * 64


@dataclass
class Host:
    """A member of one host, as its front answers other members."""

    copying: Copying
    silent: bool = False
    gives: bytes | None = None  # other bytes than it should
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = Request.of(scope, receive)
        self.asked.append(sent.method)
        if self.silent:
            raise httpx.ConnectError("down")
        if self.gives is not None and sent.method == "GET":
            await Answer(200, [], self.gives).send(send)
            return
        try:
            answer = await self.copying.answer(sent)
        except OmniError as error:
            answer = problem(error, "h")
        await answer.send(send, head=sent.method == "HEAD")


class Cluster:
    """Hosts h0, h1, h2; each keeps `wanted` copies on others."""

    def __init__(self, folder: Path, wanted: int = 1, hosts: int = 3) -> None:
        self.hosts: list[Host] = []
        urls = {f"h{number}": (f"http://h{number}",) for number in range(hosts)}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for number in range(hosts):
            name = f"h{number}"
            store = ArtifactStore(ContentDirectory(folder / name))
            others = Others({key: url for key, url in urls.items() if key != name}, urls[name], wanted, KEY, context)
            self.hosts.append(Host(Copying(others, store, Intake(folder / name / "incoming", 1 << 30, 5.0))))
        for host in self.hosts:
            mounts = {f"http://h{n}": httpx.ASGITransport(app=other) for n, other in enumerate(self.hosts)}  # type: ignore[arg-type]
            headers = host.copying.others.headers
            host.copying._client = httpx.AsyncClient(mounts=mounts, headers=headers, verify=context)  # type: ignore[arg-type]

    def holders(self, sha256: str = SHA) -> list[int]:
        return [number for number, host in enumerate(self.hosts) if host.copying.store.verify(sha256)]


def upload(folder: Path) -> Upload:
    folder.mkdir(exist_ok=True)
    path = folder / "upload.part"
    path.write_bytes(DATA)
    return Upload(path, SHA, len(DATA), "application/gzip")


def tell(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(story(), 30)

    return asyncio.run(bounded())


def test_an_upload_is_on_as_many_other_hosts_as_wanted(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))
    assert len(cluster.holders()) == 1, "one other host; our own copy is kept by who takes the upload"
    assert 0 not in cluster.holders()
    assert not list(tmp_path.glob("*/incoming/*"))


def test_a_host_that_is_away_is_replaced_by_another(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.hosts[1].silent = True
    for _ in range(4):
        tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))
    assert cluster.holders() == [2]


def test_too_few_hosts_acknowledge_nothing(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, wanted=2)
    cluster.hosts[1].silent = True
    with pytest.raises(CopiesUnavailable, match="2 of 3 hosts") as refused:
        tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))
    assert (refused.value.outcome, refused.value.status) == ("not-applied", 503)


def test_a_copy_that_is_there_is_stored_again_and_not_sent_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, hosts=2)
    tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))
    place = cluster.hosts[1].copying.store.path(SHA)
    assert place is not None
    os.utime(place, (0, 0))
    tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))
    assert cluster.hosts[1].asked == ["POST", "PUT", "POST"]
    assert place.stat().st_mtime > 0, "or the collector would take it away from under the new row"


def test_a_missing_artifact_is_fetched_once_for_all_who_want_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.hosts[2].copying.store.put(upload(tmp_path))

    async def story() -> list[bool]:
        mine = cluster.hosts[0].copying
        return list(await asyncio.gather(*(mine.fetch(SHA) for _ in range(10))))

    assert tell(story) == [True] * 10
    assert cluster.holders() == [0, 2]
    assert cluster.hosts[2].asked.count("GET") <= 1


def test_a_fetched_copy_is_as_old_as_what_it_was_made_of(tmp_path: Path) -> None:
    """Or the purge that follows the deletion of its app would take it for something that was stored again."""
    cluster = Cluster(tmp_path, hosts=2)
    cluster.hosts[1].copying.store.put(upload(tmp_path), age_s=500.0)
    assert tell(lambda: cluster.hosts[0].copying.fetch(SHA)) is True
    age_s = cluster.hosts[0].copying.store.age(SHA)
    assert age_s is not None
    assert 499 < age_s < 600


def test_wrong_bytes_are_never_kept(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.hosts[1].gives = b"something else"
    cluster.hosts[2].gives = DATA[:-1]
    assert tell(lambda: cluster.hosts[0].copying.fetch(SHA)) is False
    assert cluster.holders() == []
    assert not list(tmp_path.glob("h0/incoming/*"))


def test_a_host_asked_to_keep_what_it_lacks_fetches_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.hosts[2].copying.store.put(upload(tmp_path))

    async def story() -> list[int]:
        client = cluster.hosts[0].copying._client
        assert client is not None
        place = f"http://h1/internal/copies/{SHA}"
        said = [(await client.post(place + query)).status_code for query in ("", "?fetch=true", "")]
        listed = (await client.get("http://h1/internal/copies")).text.split()
        assert listed[0] == SHA
        return said

    assert tell(story) == [404, 200, 200]


def test_a_copy_goes_when_told_to_but_not_when_it_was_stored_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, hosts=2)
    cluster.hosts[1].copying.store.put(upload(tmp_path))

    async def discard(age_s: float) -> int:
        client = cluster.hosts[0].copying._client
        assert client is not None
        answer = await client.delete(f"http://h1/internal/copies/{SHA}?stored_before_s={age_s}")
        return answer.status_code

    assert tell(lambda: discard(60)) == 409
    assert cluster.holders() == [1]
    assert tell(lambda: discard(0)) == 204
    assert cluster.holders() == []


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x"}, {"authorization": "Bearer " + "\xe9" * 64}])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_nobody_but_a_member_sees_or_changes_a_copy(tmp_path: Path, method: str, headers: dict[str, str]) -> None:
    cluster = Cluster(tmp_path)
    cluster.hosts[0].copying.store.put(upload(tmp_path))
    sent = request(method, f"/internal/copies/{SHA}", **headers)
    with pytest.raises(NotFound):
        tell(lambda: cluster.hosts[0].copying.answer(sent))
    assert cluster.holders() == [0]


@pytest.mark.parametrize(
    "path",
    ["/internal/copies/../../etc/passwd", "/internal/copies/abc", f"/internal/copies/{SHA}/x"],
    ids=["outside", "no-digest", "below-a-digest"],
)
def test_no_other_path_is_a_copy(tmp_path: Path, path: str) -> None:
    assert not Cluster(tmp_path).hosts[0].copying.takes(request("GET", path))


def test_only_an_artifact_that_one_may_have_and_that_is_missing_is_fetched() -> None:
    gone = Answer(404, [], b'{"code":"artifact_missing"}')
    assert missing(request("GET", f"/agent/packages/{SHA}"), gone) == SHA
    assert missing(request("GET", f"/internal/artifacts/{SHA}"), gone) == SHA
    assert missing(request("GET", f"/agent/packages/{SHA}"), Answer(404, [], b'{"code":"not_found"}')) is None
    assert missing(request("GET", f"/agent/packages/{SHA}"), Answer(200, [], b"")) is None
    assert missing(request("GET", "/app/1/info"), gone) is None


def test_a_full_disk_takes_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni.kernel.errors import StorageFull

    def full(_store: ArtifactStore) -> None:
        raise StorageFull

    cluster = Cluster(tmp_path, hosts=2)
    monkeypatch.setattr(ArtifactStore, "check_room", full)
    with pytest.raises(CopiesUnavailable):
        tell(lambda: cluster.hosts[0].copying.spread(upload(tmp_path)))


def test_an_age_is_counted_by_the_clock_of_who_keeps_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni.kernel import clock

    cluster = Cluster(tmp_path, hosts=2)
    cluster.hosts[1].copying.store.put(upload(tmp_path))
    ahead = clock.now() + dt.timedelta(hours=1)
    place = cluster.hosts[1].copying.store.path(SHA)
    assert place is not None
    os.utime(place, (ahead.timestamp() - 30, ahead.timestamp() - 30))  # its clock is an hour ahead of everybody's
    monkeypatch.setattr(clock, "now", lambda: ahead)
    sent = request("DELETE", f"/internal/copies/{SHA}", "stored_before_s=60", authorization=f"Bearer {KEY}")
    answer = tell(lambda: cluster.hosts[1].copying.answer(sent))
    assert answer.status == 409, "stored 30 s ago: not what was unwanted a minute ago"
