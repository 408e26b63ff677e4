"""The docker runtime keeps the same contract over Podman's socket, where Podman is installed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.runtimes.base import Unavailable
from agent.runtimes.test_contract import Bench, ContractOfPrograms, until
from agent.runtimes.test_docker import (  # these run here with this module's engine
    DockerBench,
    answers,
    test_a_command_among_a_containers_processes,
    test_a_command_that_takes_too_long_is_ended,
    test_an_agent_killed_while_it_writes_output_loses_and_repeats_no_line,
    test_an_image_goes_from_its_package_into_the_engine_without_a_name_of_its_own,
    test_the_engine_is_killed_and_comes_back_and_what_runs_is_adopted_with_every_line_that_it_kept,
)
from omni.testing.podman_engine import PodmanEngine, missing

__all__ = [
    "test_a_command_among_a_containers_processes",
    "test_a_command_that_takes_too_long_is_ended",
    "test_an_agent_killed_while_it_writes_output_loses_and_repeats_no_line",
    "test_an_image_goes_from_its_package_into_the_engine_without_a_name_of_its_own",
    "test_the_engine_is_killed_and_comes_back_and_what_runs_is_adopted_with_every_line_that_it_kept",
]
pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


class PodmanBench(DockerBench):
    pass


@pytest.fixture(scope="module")
def engine() -> Iterator[PodmanEngine]:
    made = PodmanEngine(Path(tempfile.mkdtemp(prefix="op-")))
    try:
        made.start()
        PodmanBench.ENGINE = made
        yield made
    finally:
        made.stop()


@pytest.fixture
def bench(engine: PodmanEngine, tmp_path: Path) -> Iterator[PodmanBench]:
    made = PodmanBench(tmp_path)
    yield made
    made.close()


@pytest.mark.usefixtures("engine")
class TestPodman(ContractOfPrograms):
    def bench_type(self) -> type[Bench]:
        return PodmanBench


def test_its_figures_are_read_from_the_kernel_and_it_answers_where_it_is_said_to_be(bench: PodmanBench) -> None:
    async def story() -> None:
        runtime = bench.driver()
        serves = "exec python3 -m http.server $PORT"
        handle = await runtime.start(replace(bench.launch(1), command=serves, env={"PORT": "32123"}))
        found = await runtime.endpoint(handle)
        assert found is not None  # at this host's port, or at its own address once its network is up
        await until(lambda: answers(found.host, found.port), 30)
        stats = await runtime.stats(handle)
        assert None not in (stats.cpu_us, stats.memory_bytes)
        assert stats.memory_limit_bytes == 64 << 20
        assert min(stats.network_rx_bytes or 0, stats.network_tx_bytes or 0) > 0
        assert await runtime.listening(handle) == (32123,)
        await runtime.remove(handle)

    asyncio.run(story())


def test_an_image_that_is_not_there_and_a_command_that_is_not_there(bench: PodmanBench, engine: PodmanEngine) -> None:
    async def story() -> None:
        engine.import_busybox("busybox:latest")
        runtime = bench.driver()
        with pytest.raises(Unavailable):
            await runtime.start(replace(bench.launch(1), image="sha256:" + "0" * 64))
        engine.docker("build", "-t", "broken", "-", stdin=b'FROM busybox\nENTRYPOINT ["/nothing"]\n')
        assert await runtime.strays() == {}
        handle = await runtime.start(replace(bench.launch(1), image="broken", command=""))
        await asyncio.wait_for(runtime.wait(handle), 30)
        assert (await runtime.observe(handle)).code == 1  # catatonit's; Docker's init says 127
        await runtime.remove(handle)

    asyncio.run(story())
