"""One class of rules that every runtime driver keeps; each driver brings a bench that makes things happen."""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import platform_of
from agent.runtimes.base import Launch, Mounted, Observation, Refused, Runtime, Unavailable, Unknown
from agent.runtimes.fake import FakeHost, FakeRuntime
from agent.runtimes.process import ProcessRuntime
from sandbox import cgroups
from sandbox.probe import Facts, probe

# A program that ends with the code it finds in its home, and that may be told to ignore SIGTERM.
PROGRAM = """
[ -f ~/stubborn ] && trap '' TERM || trap 'exit 0' TERM
echo up
while [ ! -f ~/exit ]; do sleep 0.02; done
exit "$(cat ~/exit)"
"""


def tell_to_exit(home: Path, code: int) -> None:
    """The program looks all the while: it finds the whole number or nothing."""
    (home / ".exit").write_text(str(code))
    (home / ".exit").replace(home / "exit")


class Bench(ABC):
    """One host; `driver` makes a new driver on it, as a restarted agent would. `patience_s` is for machines that have
    much else to do."""

    patience_s = 60.0

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def launch(self, instance_id: int) -> Launch:
        directory = self.directory / str(instance_id)
        tree = self.directory / "tree"
        for made in (directory, directory / "home", tree):
            made.mkdir(exist_ok=True)
        return Launch(
            instance_id=instance_id,
            app_id=1,
            command=PROGRAM,
            env={"PORT": "1"},
            directory=directory,
            tree=tree,
            home=directory / "home",
            stdout=directory / "stdout.log",
            stderr=directory / "stderr.log",
            memory_bytes=64 * 1024 * 1024,
        )

    @abstractmethod
    def driver(self) -> Runtime: ...

    @abstractmethod
    def make_exit(self, instance_id: int, code: int) -> None: ...

    @abstractmethod
    def make_stubborn(self, instance_id: int) -> None: ...

    def ready(self, instance_id: int) -> bool:
        return True

    @abstractmethod
    def close(self) -> None: ...


class FakeBench(Bench):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.host = FakeHost()

    def driver(self) -> Runtime:
        return FakeRuntime(self.host)

    def make_exit(self, instance_id: int, code: int) -> None:
        self.host.die(instance_id, code=code)

    def make_stubborn(self, instance_id: int) -> None:
        self.host.ignores_term = True

    def close(self) -> None:
        pass


class ProcessBench(Bench):
    FACTS: Facts | None = None

    def driver(self) -> Runtime:
        if ProcessBench.FACTS is None:
            ProcessBench.FACTS = probe()
        return ProcessRuntime("test", self.directory, platform_of(self.directory), ProcessBench.FACTS, 61000)

    def make_exit(self, instance_id: int, code: int) -> None:
        tell_to_exit(self.directory / str(instance_id) / "home", code)

    def make_stubborn(self, instance_id: int) -> None:
        (self.directory / str(instance_id) / "home" / "stubborn").touch()

    def ready(self, instance_id: int) -> bool:
        return "up" in (self.directory / str(instance_id) / "stdout.log").read_text()

    def close(self) -> None:
        async def sweep() -> None:
            runtime = self.driver()
            for handle in (await runtime.strays()).values():
                await runtime.remove(handle)

        asyncio.run(sweep())


class BareBench(ProcessBench):
    """A host where nothing can be had: no sandbox, no cgroups."""

    def driver(self) -> Runtime:
        facts = replace(probe(), isolation="none", limits="none", bwrap=None)
        return ProcessRuntime("test", self.directory, platform_of(self.directory), facts, 61000)

    def launch(self, instance_id: int) -> Launch:
        directory = self.directory
        while directory != directory.parent:  # without a sandbox the program's user walks there on its own feet
            if directory.stat().st_uid == os.geteuid() and directory.name.startswith(("pytest-", "test_")):
                directory.chmod(0o755)
            directory = directory.parent
        return super().launch(instance_id)


class RuntimeContract(ABC):
    @abstractmethod
    def bench_type(self) -> type[Bench]: ...

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        made = self.bench_type()(tmp_path)
        yield made
        made.close()

    def test_start_runs_and_an_end_is_told_with_its_code(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            launch = bench.launch(1)
            handle = await runtime.start(launch)
            assert (await runtime.observe(handle)).state == "running"
            waiting = asyncio.create_task(runtime.wait(handle))
            bench.make_exit(1, 7)
            await asyncio.wait_for(waiting, bench.patience_s)
            assert await runtime.observe(handle) == Observation("ended", code=7)
            await runtime.remove(handle)

        asyncio.run(story())

    def test_start_is_idempotent_by_instance_id_also_for_another_agent(self, bench: Bench):
        async def story() -> None:
            first = await bench.driver().start(bench.launch(1))
            assert await bench.driver().start(bench.launch(1)) == first
            assert await bench.driver().recover(1) == first
            await bench.driver().remove(first)

        asyncio.run(story())

    def test_start_after_an_end_is_a_new_process(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            launch = bench.launch(1)
            first = await runtime.start(launch)
            await runtime.kill(first)
            second = await runtime.start(launch)
            assert second != first
            assert (await runtime.observe(second)).state == "running"
            assert (await runtime.observe(first)).state != "running"
            await runtime.remove(second)

        asyncio.run(story())

    def test_an_end_that_nobody_watched_is_learnt_by_the_next_agent(self, bench: Bench):
        async def story() -> None:
            handle = await bench.driver().start(bench.launch(1))
            bench.make_exit(1, 3)
            other = bench.driver()
            await asyncio.wait_for(other.wait(handle), bench.patience_s)
            assert await other.observe(handle) == Observation("ended", code=3)
            assert await other.recover(1) == handle
            await other.remove(handle)

        asyncio.run(story())

    def test_stop_is_heard_by_the_program(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            handle = await runtime.start(bench.launch(1))
            await until(lambda: ready(bench, 1), bench.patience_s)
            await runtime.stop(handle)
            await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
            assert await runtime.observe(handle) == Observation("ended", code=0)
            await runtime.remove(handle)

        asyncio.run(story())

    def test_a_stubborn_program_survives_stop_and_not_kill(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            launch = bench.launch(1)
            bench.make_stubborn(1)
            handle = await runtime.start(launch)
            await until(lambda: ready(bench, 1), bench.patience_s)
            await runtime.stop(handle)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(runtime.wait(handle), 0.3)
            await runtime.kill(handle)
            assert await runtime.observe(handle) == Observation("ended", signal=9)
            await runtime.remove(handle)

        asyncio.run(story())

    def test_every_verb_may_be_repeated_after_the_end(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            handle = await runtime.start(bench.launch(1))
            for _ in range(2):
                await runtime.kill(handle)
                await runtime.stop(handle)
                await runtime.wait(handle)
                await runtime.stats(handle)
            for _ in range(2):
                await runtime.remove(handle)
            assert await runtime.strays() == {}

        asyncio.run(story())

    def test_strays_are_what_runs_and_nothing_else(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            handles = [await runtime.start(bench.launch(number)) for number in (1, 2)]
            await runtime.remove(handles[0])
            found = await runtime.strays()
            assert found == {2: handles[1]}
            await runtime.remove(found[2])

        asyncio.run(story())

    def test_an_instance_never_started_is_not_recovered(self, bench: Bench):
        assert asyncio.run(bench.driver().recover(99)) is None

    def test_a_command_beside_it_tells_its_code(self, bench: Bench):
        async def story() -> None:
            runtime = bench.driver()
            launch = bench.launch(1)
            handle = await runtime.start(launch)
            assert (await runtime.execute(launch, handle, "true", bench.patience_s)).code == 0
            await runtime.remove(handle)

        asyncio.run(story())


class TestFake(RuntimeContract):
    def bench_type(self) -> type[Bench]:
        return FakeBench

    @pytest.mark.parametrize("fault", [Refused("no"), Unavailable("later"), Unknown("who knows")])
    def test_faults_come_out_as_set(self, tmp_path: Path, fault: Any):
        bench = FakeBench(tmp_path)
        bench.host.start_faults.append(fault)
        with pytest.raises(type(fault)):
            asyncio.run(bench.driver().start(bench.launch(1)))
        assert asyncio.run(bench.driver().strays()) == {}


class ContractOfPrograms(RuntimeContract):
    """What only a runtime that runs real programs can be asked."""

    def test_a_volume_is_writable_and_outlives_the_instance(self, bench: Bench):
        async def ends(instance_id: int) -> Observation:
            runtime = bench.driver()
            volume = Mounted("data", bench.directory / "volumes" / "0123456789abcdef", "/data")
            command = 'cd "$KEPT" || exit 9; [ -f it ] && exit 5; echo 1 > it && exit 4'
            launch = bench.launch(instance_id)
            env = {**launch.env, "KEPT": "/data"}
            handle = await runtime.start(replace(launch, command=command, env=env, volumes=(volume,)))
            await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
            seen = await runtime.observe(handle)
            await runtime.remove(handle)
            return seen

        assert asyncio.run(ends(1)) == Observation("ended", code=4)
        assert asyncio.run(ends(2)) == Observation("ended", code=5)


class TestProcess(ContractOfPrograms):
    def bench_type(self) -> type[Bench]:
        return ProcessBench

    def test_a_name_that_no_environment_takes_is_refused(self, tmp_path: Path):
        bench = ProcessBench(tmp_path)
        launch = replace(bench.launch(1), env={"NOT A NAME": "x"})
        with pytest.raises(Refused):
            asyncio.run(bench.driver().start(launch))
        assert cgroups.names(platform_of(tmp_path)) == []

    def test_killed_by_a_signal_is_told_as_signal(self, tmp_path: Path):
        async def story() -> Observation:
            bench = ProcessBench(tmp_path)
            runtime = bench.driver()
            handle = await runtime.start(replace(bench.launch(1), command="kill -SEGV $$"))
            await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
            seen = await runtime.observe(handle)
            await runtime.remove(handle)
            return seen

        assert asyncio.run(story()) == Observation("ended", signal=11)


class TestBareProcess(ContractOfPrograms):
    def bench_type(self) -> type[Bench]:
        return BareBench


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = Bench.patience_s) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def ready(bench: Bench, instance_id: int) -> bool:
    return bench.ready(instance_id)
