"""The agent's process: puts the parts together, runs them, and leaves without touching what runs.

Owns start-up, signals and the end. SIGTERM ends the agent only: instances stay, and the next agent takes them over.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from agent import config as configs
from agent import facts as host
from agent import tls
from agent.checks.talk import Talk
from agent.config import BadConfig, Config
from agent.control import ControlPlane
from agent.fencing import Keeper, Lease
from agent.logs.ship import Shipper
from agent.packages import Packages
from agent.ports import Ports
from agent.protocol import SessionOrder
from agent.runtimes import docker, swarm
from agent.runtimes.base import Capabilities, Runtime
from agent.runtimes.process import ProcessRuntime
from agent.samples import Sampler
from agent.sessions import Sessions
from agent.store import Store
from agent.supervisor import Supervisor
from agent.sync import Assigner, Reporter
from agent.volume_jobs import VolumeJobs
from agent.volumes import Volumes
from observing import journal, tracing
from sandbox.engines import OFF
from sandbox.probe import Facts, probe

log = logging.getLogger("agent")

RUNTIMES_S = 10.0  # between two looks at which runtimes there are


class Agent:
    """All parts of one agent, not yet running."""

    def __init__(self, config: Config, facts: Facts, config_file: Path | None = None) -> None:
        instances_dir = Path(config.instances_dir)
        self.config = config
        self.facts = facts
        self.store = Store(config.node, instances_dir, Path(config.state_dir))
        self.control = ControlPlane(config.control_plane, config.token, tls=tls.context(config.tls))
        self.lease = Lease(Path(config.state_dir), config.lease_s)
        incarnation = self.store.incarnation()
        self.reporter = Reporter(config.node, incarnation, self.control, config.heartbeat_s, self._acknowledged)
        self.checks = Talk(config.node, incarnation, self.control)
        self.shipper = Shipper(config.node, self.control, config.log_lines_per_s, config.log_burst_lines)
        self.runtimes = runtimes_of(config, facts)
        self.jobs = VolumeJobs(self.store, self.control, self._volumes_in_use, self.reporter.volume_job)
        self.volumes = Volumes(self.store, self._volumes_in_use, self.reporter.volume, self.jobs.busy)
        self.supervisor = Supervisor(
            store=self.store,
            runtimes=self.runtimes,
            packages=Packages(self.store, self.control, docker.images_of(self.runtimes.get("docker"))),
            ports=Ports(config.address, *config.port_range),
            shipper=self.shipper,
            address=config.address,
            log_max_bytes=config.log_max_bytes,
            report=self.reporter.changed,
            gone=self.reporter.gone,
            lease=self.lease,
            keeper=Keeper(config_file, Path(config.state_dir)),
            volumes=self.volumes.apply,
            volume_jobs=self.jobs.apply,
            sessions=self._sessions_wanted,
        )
        self.sessions = Sessions(config, self.supervisor.instances, self.reporter.session)
        self.sampler = Sampler(config.node, self.control, instances_dir, config.sample_interval_s)
        self.assigner = Assigner(self.control, config.wait_s, lambda: self.reporter.many_start)
        self._found: dict[str, Capabilities] = {}

    def _volumes_in_use(self) -> set[str]:
        return self.supervisor.volumes_in_use()

    def _sessions_wanted(self, orders: Sequence[SessionOrder]) -> None:
        self.sessions.apply(orders)

    def _acknowledged(self, sent_at: float) -> None:
        self.supervisor.acknowledged(sent_at)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until a part fails in a way nobody foresaw: then better a new agent than half of one."""
        await self._tell_facts()
        self.supervisor.load()
        parts = [
            asyncio.create_task(self.assigner.run(self.supervisor), name="assignments"),
            asyncio.create_task(self.reporter.run(self.supervisor), name="reports"),
            asyncio.create_task(self.shipper.run(), name="logs"),
            asyncio.create_task(self.sampler.run(self.supervisor), name="samples"),
            asyncio.create_task(self.supervisor.sweep_forever(), name="sweep"),
            asyncio.create_task(self._look_forever(), name="runtimes"),
            asyncio.create_task(self.supervisor.collect_forever(), name="collect"),
            asyncio.create_task(self.checks.run(), name="checks"),
            asyncio.create_task(self.volumes.run(), name="volumes"),
        ]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        for task in [stopping, *parts]:
            task.cancel()
        await asyncio.gather(stopping, *parts, return_exceptions=True)
        await self.sessions.close()
        await self.jobs.close()
        await self.supervisor.close()
        for runtime in self.runtimes.values():
            await runtime.close()
        for task in done - {stopping}:
            raise RuntimeError(f"{task.get_name()} ended") from task.exception()

    async def _tell_facts(self) -> None:
        """What this node can do now: an engine may come and go."""
        found = {name: await runtime.probe() for name, runtime in self.runtimes.items()}
        known, self._found = self._found, found
        if found != known:
            self.reporter.facts(host.node_facts(self.config, self.facts, found))

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(RUNTIMES_S)
            await self._tell_facts()


def runtimes_of(config: Config, facts: Facts) -> dict[str, Runtime]:
    """By name. Those of the engine are there also while it is not: what runs in it is still ours."""
    instances_dir = Path(config.instances_dir)
    found: dict[str, Runtime] = {
        "process": ProcessRuntime(config.node, instances_dir, config.platform, facts, config.uid_base)
    }
    if config.docker != OFF:
        found["docker"] = docker.of(config)
        found["swarm"] = swarm.of(config)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent", description="Runs this node's instances.")
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args(argv)
    journal.configure("agent")
    try:
        config = configs.load(arguments.config)
    except BadConfig as error:
        log.error("%s", error)
        return 2
    lock = _alone(Path(config.state_dir))
    if lock is None:
        log.error("another agent of node %s is running (%s)", config.node, config.state_dir)
        return 3
    tracing.configure("agent", config.node)
    facts = host.with_filter(config, probe(config.bwrap_bin or None))
    log.info("node %s: isolation %s, limits %s, network %s", config.node, facts.isolation, facts.limits, facts.network)
    asyncio.run(_until_signalled(Agent(config, facts, arguments.config)))
    return 0


async def _until_signalled(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await agent.run(stop)
    log.info("leaving; instances stay")
    logging.shutdown()
    os._exit(0)  # an unpacking thread may still be at work: its half tree has another name and is made anew


def _alone(state_dir: Path) -> int | None:
    """Hold the node's lock as long as this process lives; None when somebody else does."""
    state_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
