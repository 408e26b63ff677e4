"""The docker runtime keeps the contract on an engine of its own, and what only containers can be asked."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import platform_of
from agent.runtimes.base import Observation, Refused, Runtime, Unavailable, Unknown
from agent.runtimes.docker import DockerRuntime, Settings
from agent.runtimes.engine.client import Engine
from agent.runtimes.engine.output import POSITION
from agent.runtimes.entering import Entry
from agent.runtimes.test_contract import Bench, ContractOfPrograms, tell_to_exit, until
from agent.runtimes.test_entering import everything
from omni.testing.docker_engine import DockerEngine, missing
from sandbox import identity

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

# Test processes side by side have engines of their own, and one host between them.
SUBNETS = f"10.{224 + os.getpid() % 31}.0.0/16"
COUNTING = "n=0; while :; do n=$((n+1)); echo line $n; echo err $n >&2; sleep 0.01; done"


class DockerBench(Bench):
    ENGINE: DockerEngine

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.drivers: list[DockerRuntime] = []

    def driver(self) -> Runtime:
        engine = Engine(self.ENGINE.url)
        platform = platform_of(self.directory)
        settings = Settings("test", platform, self.directory, "127.0.0.1", 61000, 4 << 20, SUBNETS)
        self.drivers.append(DockerRuntime(engine, settings))
        return self.drivers[-1]

    def make_exit(self, instance_id: int, code: int) -> None:
        tell_to_exit(self.directory / str(instance_id) / "home", code)

    def make_stubborn(self, instance_id: int) -> None:
        (self.directory / str(instance_id) / "home" / "stubborn").touch()

    def said(self, instance_id: int, name: str = "stdout.log") -> str:
        path = self.directory / str(instance_id) / name
        return path.read_text() if path.exists() else ""

    def ready(self, instance_id: int) -> bool:
        return "up" in self.said(instance_id)

    def close(self) -> None:
        async def sweep() -> None:
            runtime = self.driver()
            for handle in (await runtime.strays()).values():
                await runtime.remove(handle)
            await runtime.close()

        asyncio.run(sweep())


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    made = DockerEngine(Path(tempfile.mkdtemp(prefix="oe-")))
    try:
        made.start("--live-restore")
        DockerBench.ENGINE = made
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runtime gives up after a while, on a machine that has time."""
    for name in ("_KILL_DEADLINE_S", "_OUTPUT_PATIENCE_S"):
        monkeypatch.setattr(f"agent.runtimes.docker.{name}", DockerBench.patience_s)


@pytest.fixture
def bench(engine: DockerEngine, tmp_path: Path) -> Iterator[DockerBench]:
    made = DockerBench(tmp_path)
    yield made
    made.close()


@pytest.mark.usefixtures("engine")
class TestDocker(ContractOfPrograms):
    def bench_type(self) -> type[Bench]:
        return DockerBench


def test_the_engine_is_killed_and_comes_back_and_what_runs_is_adopted_with_every_line_that_it_kept(
    bench: DockerBench, engine: DockerEngine
):
    """A line that the engine had taken and not yet written when it was killed may be lost in it, and in `kept`."""

    async def story() -> None:
        runtime = bench.driver()
        handle = await runtime.start(replace(bench.launch(1), command=COUNTING))
        await until(lambda: holds(lambda: "line 20\n" in bench.said(1)))
        waiting = asyncio.create_task(runtime.wait(handle))
        await asyncio.to_thread(engine.kill)
        with pytest.raises(Unknown):
            await runtime.observe(handle)
        with pytest.raises(Unavailable):
            await runtime.start(bench.launch(2))
        assert not (await runtime.probe()).available
        await asyncio.to_thread(engine.start, "--live-restore")
        assert (await runtime.observe(handle)).state == "running"
        assert await bench.driver().recover(1) == handle
        written = bench.said(1).count("\n")
        await until(lambda: holds(lambda: bench.said(1).count("\n") > written + 20), 15)
        assert not waiting.done()
        await runtime.kill(handle)
        await asyncio.wait_for(waiting, 30)
        kept = engine.output(engine.docker("ps", "--all", "--quiet").strip())
        assert (bench.said(1), bench.said(1, "stderr.log")) == kept
        assert "line 20\n" in kept[0]
        await runtime.remove(handle)

    asyncio.run(story())


def test_a_command_among_a_containers_processes(bench: DockerBench):
    async def story() -> None:
        runtime = bench.driver()
        handle = await runtime.start(bench.launch(1))
        line = 'read x; echo "got $x"; cat /proc/1/comm; id -u; echo oops >&2; exit 7'
        plain = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", line)))
        await plain.write(b"one\n")
        await plain.end_input()
        out, err = await everything(plain)
        assert (out.splitlines()[0], err, await plain.wait()) == (b"got one", b"oops\n", 7)
        assert out.splitlines()[2] == str(identity.uid_for("app", 1, 61000)).encode()
        await plain.end()
        terminal = await runtime.enter(
            bench.launch(1), handle, Entry(("sh", "-c", "read x; stty size; sleep 602"), True, 90, 30)
        )
        await terminal.write(b"\n")
        said = b""
        async with asyncio.timeout(bench.patience_s):
            while b"30 90" not in said and (piece := await terminal.read()) is not None:
                said += piece[1]
        assert b"30 90" in said
        await terminal.end()
        assert (await runtime.observe(handle)).state == "running"
        await runtime.kill(handle)
        with pytest.raises(Unavailable):
            await runtime.enter(bench.launch(1), handle, Entry(("true",)))
        await runtime.remove(handle)

    asyncio.run(story())


def test_an_agent_killed_while_it_writes_output_loses_and_repeats_no_line(bench: DockerBench):
    async def story() -> None:
        waiting: list[asyncio.Task[None]] = []
        runtime = bench.driver()
        handle = await runtime.start(replace(bench.launch(1), command=COUNTING))
        note, early = bench.directory / "1" / POSITION, ""
        for round_ in range(1, 4):
            await until(lambda: holds(lambda: f"line {20 * round_}\n" in bench.said(1)))  # noqa: B023
            await bench.drivers[-1].close()
            # What a kill leaves between writing and noting it: the files are ahead of the note.
            early, now = note.read_text(), early
            note.write_text(now or early)
            bench.driver()
            waiting.append(asyncio.create_task(bench.drivers[-1].wait(handle)))
        await until(lambda: holds(lambda: "line 100\n" in bench.said(1)))
        await bench.drivers[-1].kill(handle)
        await asyncio.wait_for(waiting[-1], bench.patience_s)
        assert gap_free(bench.said(1), "line")
        assert gap_free(bench.said(1, "stderr.log"), "err")
        await bench.drivers[-1].remove(handle)

    asyncio.run(story())


def test_too_much_memory_is_told_as_such(bench: DockerBench):
    async def story() -> Observation:
        runtime = bench.driver()
        eats = 'python3 -c "x = bytearray(400 << 20)" || exit 5'
        handle = await runtime.start(replace(bench.launch(1), command=eats, memory_bytes=32 << 20))
        await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
        return await runtime.observe(handle)

    seen = asyncio.run(story())
    assert seen.state == "ended"
    assert seen.oom


def test_its_figures_are_read_from_the_kernel_and_its_network_is_its_own(bench: DockerBench):
    async def story() -> None:
        runtime = bench.driver()
        serves = "exec python3 -m http.server $PORT"
        handle = await runtime.start(replace(bench.launch(1), command=serves, env={"PORT": "8123"}))
        found = await runtime.endpoint(handle)
        assert found is not None
        assert (found.routed, found.port) == (True, 8123)
        await until(lambda: answers(found.host, found.port))
        stats = await runtime.stats(handle)
        assert None not in (stats.cpu_us, stats.memory_bytes)
        assert stats.memory_limit_bytes == 64 << 20
        assert min(stats.network_rx_bytes or 0, stats.network_tx_bytes or 0) > 0
        assert await runtime.listening(handle) == (8123,)
        await runtime.remove(handle)

    asyncio.run(story())


def test_a_command_that_takes_too_long_is_ended(bench: DockerBench):
    async def story() -> None:
        runtime = bench.driver()
        launch = bench.launch(1)
        handle = await runtime.start(launch)
        assert (await runtime.execute(launch, handle, "sleep 60", 0.3)).code is None
        said = await runtime.execute(launch, handle, "ps ax | grep -c '[s]leep 60'; id -u", bench.patience_s)
        assert said.output.split() == ["0", str(61001 if os.geteuid() == 0 else os.geteuid())]
        await runtime.remove(handle)

    asyncio.run(story())


def test_an_image_that_is_not_there_is_waited_for_and_a_command_that_is_not_there_is_an_end(
    bench: DockerBench, engine: DockerEngine
):
    async def story() -> None:
        engine.import_busybox("busybox:latest")
        runtime = bench.driver()
        with pytest.raises(Unavailable):
            await runtime.start(replace(bench.launch(1), image="sha256:" + "0" * 64))
        engine.docker("build", "-t", "broken", "-", stdin=b'FROM busybox\nENTRYPOINT ["/nothing"]\n')
        assert await runtime.strays() == {}
        handle = await runtime.start(replace(bench.launch(1), image="broken", command=""))
        await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
        assert (await runtime.observe(handle)).code == 127
        await runtime.remove(handle)

    asyncio.run(story())


def holds(condition: Callable[[], bool]):
    async def now() -> bool:
        return condition()

    return now()


async def answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    await writer.drain()
    writer.close()
    return True


def gap_free(text: str, word: str) -> bool:
    lines = text.splitlines()
    return lines == [f"{word} {number}" for number in range(1, len(lines) + 1)]


def test_an_image_goes_from_its_package_into_the_engine_without_a_name_of_its_own(
    bench: DockerBench, engine: DockerEngine
):
    async def story() -> None:
        engine.import_busybox("busybox:latest")
        runtime = bench.driver()
        assert isinstance(runtime, DockerRuntime)
        archive, named, digest = bench.directory / "a.tar", bench.directory / "b.tar", "d" * 64
        about = engine.docker("image", "inspect", "-f", "{{.Id}}", "busybox").strip()
        engine.docker("save", "-o", str(archive), about)
        engine.docker("save", "-o", str(named), "busybox:latest")
        with pytest.raises(Refused):
            await runtime.images.load(digest, named)
        assert not await runtime.images.has(digest)
        await runtime.images.load(digest, archive)
        assert await runtime.images.has(digest)
        launch = replace(bench.launch(1), image=runtime.images.name(digest), command="echo up; exit 4")
        handle = await runtime.start(launch)
        await asyncio.wait_for(runtime.wait(handle), bench.patience_s)
        assert (await runtime.observe(handle)).code == 4
        await runtime.remove(handle)
        assert bench.said(1) == "up\n"
        await runtime.images.discard_all()
        assert not await runtime.images.has(digest)

    asyncio.run(story())
