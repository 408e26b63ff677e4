"""The swarm runtime keeps the contract on a real swarm of one node, and what only a swarm can be asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import platform_of
from agent.runtimes.base import Endpoint, Handle, Runtime, Unavailable, Unknown
from agent.runtimes.engine.client import Engine
from agent.runtimes.entering import Entry
from agent.runtimes.swarm import Settings, SwarmRuntime
from agent.runtimes.test_contract import Bench, ContractOfPrograms, tell_to_exit, until
from agent.runtimes.test_docker import COUNTING, answers, gap_free, holds
from agent.runtimes.test_entering import everything
from omni.testing.image_registry import ImageRegistry
from omni.testing.swarm import Swarm, missing
from sandbox import identity

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


class SwarmBench(Bench):
    SWARM: Swarm

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.drivers: list[SwarmRuntime] = []

    def driver(self) -> Runtime:
        platform = platform_of(self.directory)
        settings = Settings("test", platform, self.directory, 61000, 4 << 20, "")
        self.drivers.append(SwarmRuntime(Engine(self.SWARM.engines[0].url), settings))
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
            assert isinstance(runtime, SwarmRuntime)
            for handle in (await runtime.strays()).values():
                await runtime.remove(handle)
            await runtime.leave()
            await runtime.close()

        asyncio.run(sweep())


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with Swarm("oswt") as made:
        SwarmBench.SWARM = made
        yield made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the runtime gives up after a while, on a machine that has time."""
    for name in ("PLACED_WITHIN_S", "_KILL_DEADLINE_S"):
        monkeypatch.setattr(f"agent.runtimes.swarm.{name}", SwarmBench.patience_s)


@pytest.fixture
def bench(swarm: Swarm, tmp_path: Path) -> Iterator[SwarmBench]:
    made = SwarmBench(tmp_path)
    yield made
    made.close()


@pytest.mark.usefixtures("swarm")
class TestSwarm(ContractOfPrograms):
    def bench_type(self) -> type[Bench]:
        return SwarmBench


async def located(runtime: Runtime, handle: Handle) -> Endpoint:
    """Its port is told a moment after it runs."""
    found: list[Endpoint] = []

    async def told() -> bool:
        with contextlib.suppress(Unknown):
            found.extend(filter(None, [await runtime.endpoint(handle)]))
        return bool(found)

    await until(told)
    return found[0]


def test_it_is_reached_at_its_nodes_address_figures_come_from_the_kernel_and_commands_run_in_it(bench: SwarmBench):
    async def story() -> None:
        runtime = bench.driver()
        assert (await runtime.probe()).available
        serves = "echo line 1; exec python3 -m http.server $PORT"
        handle = await runtime.start(replace(bench.launch(1), command=serves, env={"PORT": "8123"}))
        found = await located(runtime, handle)
        assert found == Endpoint(SwarmBench.SWARM.hosts[0].address, found.port, routed=True)
        await until(lambda: answers(found.host, found.port))
        stats = await runtime.stats(handle)
        assert None not in (stats.cpu_us, stats.memory_bytes, stats.network_rx_bytes)
        assert stats.memory_limit_bytes == 64 << 20
        assert await runtime.listening(handle) == (8123,)
        line = 'read x; echo "got $x"; cat /proc/1/comm; id -u; echo oops >&2; exit 7'
        entered = await runtime.enter(bench.launch(1), handle, Entry(("sh", "-c", line)))
        await entered.write(b"one\n")
        await entered.end_input()
        out, err = await everything(entered)
        assert (out.splitlines()[0], err, await entered.wait()) == (b"got one", b"oops\n", 7)
        assert out.splitlines()[2] == str(identity.uid_for("app", 1, 61000)).encode()
        await entered.end()
        await runtime.kill(handle)
        with pytest.raises(Unavailable):
            await runtime.enter(bench.launch(1), handle, Entry(("true",)))
        assert gap_free(bench.said(1), "line")
        await runtime.remove(handle)

    asyncio.run(story())


def test_what_no_node_has_room_for_is_waited_for_with_swarms_own_reason(
    bench: SwarmBench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.runtimes.swarm.PLACED_WITHIN_S", 1.0)

    async def story() -> None:
        runtime = bench.driver()

        async def told() -> bool:
            """Swarm may not have come to look for a node yet."""
            with pytest.raises(Unavailable) as refused:
                await runtime.start(replace(bench.launch(1), memory_bytes=1 << 45))
            assert await runtime.strays() == {}
            return "no suitable node" in str(refused.value)

        await until(told)

    asyncio.run(story())


@pytest.mark.long
def test_an_agent_that_comes_back_goes_on_with_the_output(bench: SwarmBench):
    async def story() -> None:
        handle = await bench.driver().start(replace(bench.launch(1), command=COUNTING))
        await until(lambda: holds(lambda: "line 20\n" in bench.said(1)))
        await bench.drivers[-1].close()
        runtime = bench.driver()
        assert await runtime.recover(1) == handle
        await runtime.kill(handle)
        assert gap_free(bench.said(1), "line")
        assert gap_free(bench.said(1, "stderr.log"), "err")
        await runtime.remove(handle)

    asyncio.run(story())


def test_an_engine_that_is_no_manager_says_what_to_do(bench: SwarmBench, swarm: Swarm):
    async def story() -> None:
        runtime = bench.driver()
        swarm.engines[0].docker("swarm", "leave", "--force")
        try:
            seen = await runtime.probe()
            assert not seen.available
            assert "docker swarm init" in seen.notes[0]
            with pytest.raises(Unavailable):
                await runtime.start(bench.launch(1))
            with pytest.raises(Unknown):
                await runtime.recover(1)
        finally:
            swarm.join()

    asyncio.run(story())


@pytest.mark.long
def test_an_image_runs_anywhere_in_the_swarm_and_is_moved_from_a_lost_node(tmp_path: Path):
    """Three engines and a registry between them."""

    async def story(swarm: Swarm, registry: str) -> None:
        manager = swarm.engines[0]
        manager.import_busybox("web:1")
        manager.docker("node", "update", "--availability", "drain", swarm.node_of(manager))
        manager.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
        bench = SwarmBench(tmp_path)
        settings = Settings("test", platform_of(tmp_path), tmp_path, 61000, 4 << 20, registry)
        runtime = SwarmRuntime(Engine(manager.url), settings)
        serves = "mkdir /w; echo hello >/w/index.html; echo up; exec httpd -f -p $PORT -h /w"
        launch = replace(bench.launch(1), command=serves, env={"PORT": "8123"}, image="web:1", may_move=True)
        handle = await runtime.start(launch)
        first = await located(runtime, handle)
        assert first.host in [host.address for host in swarm.hosts.hosts[1:]]
        await until(lambda: answers(first.host, first.port))
        assert first.place
        with pytest.raises(Unavailable, match="another node of the swarm"):
            await runtime.enter(launch, handle, Entry(("true",)))
        assert (await runtime.stats(handle)).memory_bytes is None
        waiting = asyncio.create_task(runtime.wait(handle))
        await until(lambda: holds(lambda: "up" in bench.said(1)))
        lost = next(host for host in swarm.hosts.hosts if host.address == first.host)
        lost.cut()

        async def moved() -> bool:
            try:
                now = await runtime.endpoint(handle)
            except Unknown:
                return False
            return now is not None and now.host != first.host and await answers(now.host, now.port)

        await until(moved, 90)
        assert not waiting.done()  # to the agent it has run all the time
        lost.join()
        await runtime.stop(handle)
        await asyncio.wait_for(waiting, bench.patience_s)
        await runtime.remove(handle)
        assert await runtime.strays() == {}
        await runtime.leave()
        await runtime.close()

    insecure = "--insecure-registry=10.0.0.0/8"
    with Swarm("osw3", 3, insecure) as swarm, ImageRegistry(address=swarm.hosts.here) as registry:
        asyncio.run(story(swarm, registry.host))
