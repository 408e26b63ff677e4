"""Rules of carrying decisions out, over the fake runtime: every fault of a driver, and the start of a new agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from agent import backoff, clock, probes, record
from agent.fake_plane import assignment
from agent.instance import PROCESS_SETTLES_S, Instance, Surroundings
from agent.logs.tail import Tail
from agent.packages import Packages
from agent.ports import Ports
from agent.protocol import HealthCheck, Observed, ReleaseRef
from agent.record import Record
from agent.runtimes.base import Endpoint, Handle, Refused, Unavailable, Unknown
from agent.runtimes.fake import FakeHost, FakeRuntime
from agent.store import Store

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

RELEASE = ReleaseRef(1, "1", "0" * 64, 1)
CHECK = HealthCheck(type="exec", command="x", interval_s=0.02)


class NoPackages:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def ensure(self, release: ReleaseRef) -> Path:
        return self.directory

    def path(self, digest: str) -> Path:
        return self.directory


class Nest:
    """One host and the directories of one node; `hatch` is an agent's instance 1 on it, as the disk has it."""

    def __init__(self, directory: Path) -> None:
        self.host = FakeHost()
        self.store = Store("n", directory / "instances", directory / "n")
        self.told: list[Observed] = []
        self.deleted: list[int] = []
        self.around = Surroundings(
            address="127.0.0.1",
            store=self.store,
            packages=cast(Packages, NoPackages(directory)),
            ports=Ports("127.0.0.1", 2000, 2100, lambda *_: True),
            taken=lambda: (),
            report=self.told.append,
            deleted=self.deleted.append,
        )
        self.store.save(record.new("n", clock.boot_id(), assignment(1, RELEASE, "x", health_check=CHECK)))

    def hatch(self) -> Instance:
        (kept,) = self.store.load()
        return Instance(kept, FakeRuntime(self.host), Tail(self.store.directory(1), 1 << 20), self.around)

    def kept(self) -> Record:
        return self.store.load()[0]


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def lived(instance: Instance, condition: Callable[[], object]) -> None:
    """An agent's life that ends (as by SIGKILL) as soon as the condition holds."""
    task = asyncio.create_task(instance.run())
    await until(condition)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await instance.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *args, **named: 0.05)


def test_refused_fails_it_at_once_and_for_good(tmp_path: Path):
    nest = Nest(tmp_path)
    nest.host.start_faults = [Refused("this cannot run here")]
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().terminal))
    assert nest.kept().observed.status == "failed"
    assert nest.kept().observed.detail == "this cannot run here"
    assert nest.host.starts == 0


def test_unavailable_is_tried_again_until_it_works(tmp_path: Path):
    nest = Nest(tmp_path)
    nest.host.start_faults = [Unavailable("full"), Unavailable("still full")]
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    assert any("still full" in each.detail for each in nest.told)
    assert nest.kept().observed.restarts == 0


def test_unknown_is_looked_at_before_anything_else_is_done(tmp_path: Path):
    nest = Nest(tmp_path)
    nest.host.fault_after_start = Unknown("the answer was lost")
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    assert nest.host.starts == 1


def test_a_new_agent_adopts_and_starts_nothing(tmp_path: Path):
    nest = Nest(tmp_path)
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    before = nest.kept()
    nest.host.processes[1].ended = asyncio.Event()  # another loop's
    second = nest.hatch()
    asyncio.run(lived(second, lambda: second.runtime is not None and second._companions))
    assert nest.host.starts == 1
    assert nest.kept().observed == before.observed


def test_a_start_that_was_never_written_down_is_found(tmp_path: Path):
    nest = Nest(tmp_path)
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    kept = nest.kept()
    torn = replace(kept, handle=None, started=None, observed=replace(kept.observed, status="starting", started_at=None))
    nest.store.save(torn)
    nest.host.processes[1].ended = asyncio.Event()
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    assert nest.host.starts == 1
    assert nest.kept().observed.restarts == 0


def test_after_a_reboot_it_starts_again_and_that_is_no_crash(tmp_path: Path):
    nest = Nest(tmp_path)
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    nest.host.reboot()
    nest.store.save(replace(nest.kept(), boot_id="another boot"))
    nest.told.clear()
    asyncio.run(lived(nest.hatch(), lambda: nest.host.starts == 2 and nest.kept().observed.status == "running"))
    assert all(each.status != "crashed" for each in nest.told)
    assert nest.kept().failures == 0


def test_an_end_is_told_once_and_counted_once(tmp_path: Path):
    async def story() -> None:
        nest = Nest(tmp_path)
        instance = nest.hatch()
        task = asyncio.create_task(instance.run())
        for number in range(1, 4):
            await until(lambda: nest.kept().observed.status == "running")
            nest.host.die(1, code=4)
            await until(lambda at=number: nest.kept().observed.restarts == at)
        await until(lambda: nest.kept().observed.status == "running")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await instance.close()
        crashes = [each for each in nest.told if each.status == "crashed"]
        assert len(crashes) == 3
        assert all(each.last_exit is not None and each.last_exit.code == 4 for each in crashes)
        assert nest.host.starts == 4

    asyncio.run(story())


def test_a_process_check_waits_until_the_process_has_settled(tmp_path: Path):
    nest = Nest(tmp_path)
    kept = nest.kept()
    nest.store.save(replace(kept, assignment=replace(kept.assignment, health_check=HealthCheck(type="process"))))
    before = time.monotonic()
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    assert time.monotonic() - before >= PROCESS_SETTLES_S


@pytest.mark.parametrize(("keeps_s", "asked"), [(3600.0, 1), (0.0, 5)])
def test_where_a_program_is_that_does_not_listen_yet_is_not_asked_before_every_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_s: float, asked: int
):
    nest = Nest(tmp_path)
    kept = nest.kept()
    nest.store.save(replace(kept, assignment=replace(kept.assignment, health_check=HealthCheck(type="http"))))
    places = probed = 0

    class Elsewhere(FakeRuntime):
        async def endpoint(self, handle: Handle) -> Endpoint:
            nonlocal places
            places += 1
            return Endpoint("127.0.0.1", 9, routed=False)

    async def closed(*_: object) -> probes.Answer:
        nonlocal probed
        probed += 1
        return probes.Answer(probed == 5, "port 9: connection refused", reached=False)

    monkeypatch.setattr(probes, "ask", closed)
    monkeypatch.setattr("agent.instance.LOCATED_S", keeps_s)
    instance = nest.hatch()
    instance.runtime = Elsewhere(nest.host)
    asyncio.run(lived(instance, lambda: nest.kept().observed.status == "running"))
    assert places == asked


@pytest.mark.parametrize(("silent_s", "told"), [(3600.0, False), (0.0, True)])
def test_that_a_program_does_not_listen_yet_is_told_only_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_s: float, told: bool
):
    nest = Nest(tmp_path)
    kept = nest.kept()
    nest.store.save(replace(kept, assignment=replace(kept.assignment, health_check=HealthCheck(type="http"))))
    answers = iter([False, False, True])

    async def closed_at_first(*_: object) -> probes.Answer:
        ok = next(answers, True)
        return probes.Answer(ok, "200" if ok else "connection refused", reached=ok)

    monkeypatch.setattr(probes, "ask", closed_at_first)
    monkeypatch.setattr("agent.instance.SILENT_S", silent_s)
    asyncio.run(lived(nest.hatch(), lambda: nest.kept().observed.status == "running"))
    probed = [each.last_probe.ok for each in nest.told if each.last_probe is not None]
    assert (False in probed) is told
    assert probed[-1]


def test_remove_deletes_the_directory_and_says_so(tmp_path: Path):
    nest = Nest(tmp_path)
    instance = nest.hatch()

    async def story() -> None:
        task = asyncio.create_task(instance.run())
        await until(lambda: nest.kept().observed.status == "running")
        instance.assign(replace(instance.record.assignment, desired="remove"))
        await asyncio.wait_for(task, 5)

    asyncio.run(story())
    assert nest.deleted == [1]
    assert not nest.store.directory(1).exists()
    assert asyncio.run(FakeRuntime(nest.host).strays()) == {}
