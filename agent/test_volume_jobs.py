"""Jobs on volumes at the agent: a snapshot is sent as it is read, a restore takes effect at once or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from agent import volume_jobs
from agent.control import NoAnswer, Rejected
from agent.protocol import VolumeJob, VolumeJobSeen
from agent.runtimes import kept
from agent.runtimes.base import Mounted
from agent.store import Store
from agent.sync import Reporter
from agent.volume_jobs import VolumeJobs
from agent.volumes import recover

KEY = "0123456789abcdef"


class Members:
    """The control plane, as far as jobs talk to it. `faults`: what it says first."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.faults: list[Exception] = []
        self.asked: list[str] = []
        self.hold: asyncio.Event | None = None

    async def upload(
        self, path: str, media_type: str, timeout_s: float, open_chunks: Callable[[], AsyncIterator[bytes]]
    ) -> Any:
        self.asked.append(path)
        body = b"".join([chunk async for chunk in open_chunks()])
        if self.hold is not None:
            await self.hold.wait()
        if self.faults:
            raise self.faults.pop(0)
        digest = hashlib.sha256(body).hexdigest()
        self.kept[digest] = body
        return {"sha256": digest, "size": len(body)}

    async def download(self, path: str, timeout_s: float, limit: int, open_sink: Callable[[], Any]) -> None:
        self.asked.append(path)
        sink = open_sink()
        if self.faults:
            raise self.faults.pop(0)
        sink(self.kept[path.rpartition("/")[2]])


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = Store("n", directory / "instances", directory / "state")
        self.members = Members()
        self.used: set[str] = set()
        self.told: list[VolumeJobSeen] = []
        self.volume = self.store.volume(KEY)

    def fill(self, text: str) -> None:
        self.volume.mkdir(parents=True, exist_ok=True)
        (self.volume / "file").write_text(text)

    def do(self, *jobs: VolumeJob) -> VolumeJobSeen:
        """All of them to their ends; the last thing that was told."""

        async def work() -> None:
            made = self.jobs()
            made.apply(jobs)
            await asyncio.wait([running.task for running in made._running if running.task is not None], timeout=30)
            made.apply(jobs)  # the same list again: nothing is done twice
            assert not made.busy()
            await made.close()

        asyncio.run(work())
        return self.told[-1]

    def jobs(self) -> VolumeJobs:
        return VolumeJobs(self.store, self.members, lambda: self.used, self.told.append)  # type: ignore[arg-type]

    def snapshot(self, **fields: Any) -> VolumeJobSeen:
        return self.do(VolumeJob("snapshot", 7, KEY, **{"max_bytes": 1 << 20, **fields}))

    def restore(self, seen: VolumeJobSeen, **fields: Any) -> VolumeJobSeen:
        given = {"sha256": seen.sha256, "size": seen.size, "content_bytes": seen.content_bytes, "root": seen.root}
        return self.do(VolumeJob("restore", 9, KEY, **{**given, **fields}))

    def left(self) -> list[str]:
        return sorted(path.name for path in self.volume.parent.iterdir())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(volume_jobs, "delay", lambda *_, **__: 0.0)
    monkeypatch.setattr("os.sync", lambda: None)  # the host has other work than our tests' data
    return Bench(tmp_path)


def test_a_volume_becomes_again_what_it_was(bench: Bench) -> None:
    bench.fill("before")
    bench.volume.chmod(0o750)
    taken = bench.snapshot()
    assert (taken.ended, taken.reason, taken.files, taken.content_bytes) == (True, "", 1, 6)
    assert [(seen.ended, seen.id) for seen in bench.told] == [(False, 7), (True, 7)]
    bench.fill("after")
    (bench.volume / "more").write_text("x")
    bench.volume.chmod(0o700)
    done = bench.restore(taken)
    assert (done.ended, done.reason) == (True, "")
    assert [path.name for path in bench.volume.iterdir()] == ["file"]
    assert (bench.volume / "file").read_text() == "before"
    assert bench.volume.stat().st_mode & 0o777 == 0o750
    assert bench.left() == [KEY]


def test_it_also_goes_where_no_volume_has_been_yet(bench: Bench) -> None:
    bench.fill("before")
    taken = bench.snapshot()
    (bench.volume / "file").unlink()
    bench.volume.rmdir()
    assert bench.restore(taken).reason == ""
    assert (bench.volume / "file").read_text() == "before"


def test_a_snapshot_that_is_to_be_still_is_refused_while_something_runs_and_a_live_one_is_not(bench: Bench) -> None:
    bench.fill("x")
    bench.used.add(KEY)
    assert bench.snapshot().reason == "in_use"
    assert bench.members.asked == []
    taken = bench.snapshot(still=False)
    assert taken.reason == ""
    assert bench.restore(taken).reason == "in_use"


@pytest.mark.parametrize(("fault", "reason", "asked"), [
    (NoAnswer("503"), "", 2), (Rejected(413, "too large"), "refused", 1),
])  # fmt: skip
def test_what_no_member_answers_is_tried_again_and_a_refusal_is_not(
    bench: Bench, fault: Exception, reason: str, asked: int
) -> None:
    bench.fill("x")
    bench.members.faults = [fault]
    assert bench.snapshot().reason == reason
    assert len(bench.members.asked) == asked


def test_a_damaged_archive_changes_nothing(bench: Bench) -> None:
    bench.fill("before")
    taken = bench.snapshot()
    bench.fill("after")
    bench.members.kept[taken.sha256] = bench.members.kept[taken.sha256][:-3] + b"xyz"
    assert bench.restore(taken).reason == "damaged"
    assert (bench.volume / "file").read_text() == "after"
    assert bench.left() == [KEY]


def test_what_holds_more_than_it_said_is_not_put_in_place(bench: Bench) -> None:
    bench.fill("before")
    taken = bench.snapshot()
    bench.fill("after")
    assert bench.restore(taken, content_bytes=1).reason == "too_many_bytes"
    assert (bench.volume / "file").read_text() == "after"
    assert bench.left() == [KEY]


def test_without_room_beside_it_nothing_is_fetched(bench: Bench) -> None:
    bench.fill("x")
    taken = bench.snapshot()
    assert bench.restore(taken, content_bytes=1 << 60).reason == "no_room"
    assert (bench.volume / "file").read_text() == "x"


def test_the_size_has_a_limit(bench: Bench) -> None:
    bench.fill("x" * 2000)
    assert bench.snapshot(max_bytes=1000).reason == "too_many_bytes"


def test_a_job_that_no_list_names_any_more_is_given_up_and_the_next_one_waits_for_its_end(bench: Bench) -> None:
    bench.fill("x")

    async def work() -> None:
        bench.members.hold = asyncio.Event()
        jobs = bench.jobs()
        jobs.apply([VolumeJob("snapshot", 1, KEY, max_bytes=1000)])
        while not bench.members.asked:
            await asyncio.sleep(0.01)
        jobs.apply([VolumeJob("snapshot", 2, KEY, max_bytes=1000)])
        bench.members.hold.set()
        tasks = [running.task for running in jobs._running if running.task is not None]
        await asyncio.wait(tasks, timeout=30)
        assert jobs.busy() == set()

    asyncio.run(work())
    assert [seen.id for seen in bench.told if seen.ended] == [2]


def test_an_agent_that_died_between_two_names_gives_the_volume_its_own_one_back(bench: Bench) -> None:
    bench.fill("mine")
    old = bench.store.beside_volume(KEY, "old")
    bench.volume.rename(old)
    recover(bench.volume)
    assert (bench.volume / "file").read_text() == "mine"
    old.mkdir()
    (old / "file").write_text("stale")
    recover(bench.volume)  # the volume is there: what is old stays old
    assert (bench.volume / "file").read_text() == "mine"


def test_a_disk_that_refuses_every_new_name_costs_no_data(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill("before")
    taken = bench.snapshot()
    bench.fill("mine")
    rename, names = Path.rename, list[str]()

    def refuse(path: Path, target: Path) -> Path:
        names.append(path.name)
        if target == bench.volume:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", refuse)
        assert bench.restore(taken).reason == "disk_failed"
        assert names[-3:] == [KEY, f".{KEY}.new", f".{KEY}.old"]
    recover(bench.volume)
    assert (bench.volume / "file").read_text() == "mine"


def test_a_start_right_after_such_a_death_finds_its_data_and_no_empty_volume(bench: Bench) -> None:
    bench.fill("mine")
    bench.volume.rename(bench.store.beside_volume(KEY, "old"))
    launch = SimpleNamespace(volumes=[Mounted("data", bench.volume, "/data")], image="")
    kept.prepare(launch, None)  # type: ignore[arg-type]
    assert (bench.volume / "file").read_text() == "mine"


def test_what_is_no_key_is_no_job(bench: Bench) -> None:
    async def work() -> None:
        jobs = bench.jobs()
        jobs.apply([VolumeJob("restore", 1, "../../etc")])
        assert jobs.busy() == set()

    asyncio.run(work())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_was_the_old_owners_is_the_present_ones_afterwards(bench: Bench) -> None:
    bench.fill("mine")
    (bench.volume / "other").write_text("x")
    for path, uid in ((bench.volume, 61007), (bench.volume / "file", 61007), (bench.volume / "other", 999)):
        os.chown(path, uid, uid)
    taken = bench.snapshot()
    os.chown(bench.volume, 62009, 62009)
    bench.restore(taken)
    owners = [(bench.volume / name).stat().st_uid for name in (".", "file", "other")]
    assert owners == [62009, 62009, 999]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_volume_that_was_restored_before_its_app_ran_here_becomes_its_own(bench: Bench, tmp_path: Path) -> None:
    bench.fill("mine")
    (bench.volume / "inner").mkdir()
    (bench.volume / "inner" / "other").write_text("x")
    os.chown(bench.volume / "inner" / "other", 999, 999)
    outside = tmp_path / "outside"
    outside.write_text("x")
    (bench.volume / "link").symlink_to(outside)
    kept._give(bench.volume, 0, 61007)
    owners = {path.name: path.lstat().st_uid for path in (bench.volume, *bench.volume.rglob("*"))}
    assert owners == {KEY: 61007, "file": 61007, "inner": 61007, "other": 999, "link": 61007}
    assert outside.stat().st_uid == 0


def test_the_end_of_a_job_is_told_until_it_was_heard() -> None:
    told: list[Any] = []

    class Deaf:
        async def post(self, path: str, body: bytes, timeout_s: float) -> Any:
            told.append(orjson.loads(body)["volume_jobs"])
            if len(told) == 1:
                raise NoAnswer("503")
            return {"index": 1, "epoch": 1}

    async def story() -> None:
        reporter = Reporter("n", 1, Deaf(), 1.0)  # type: ignore[arg-type]
        reporter.volume_job(VolumeJobSeen("restore", 9))
        reporter.volume_job(VolumeJobSeen("restore", 9, ended=True))
        with pytest.raises(NoAnswer):
            await reporter.send()
        await reporter.send()
        await reporter.send()

    asyncio.run(story())
    assert [[(seen["id"], seen["ended"]) for seen in jobs] for jobs in told] == [[(9, True)], [(9, True)], []]
