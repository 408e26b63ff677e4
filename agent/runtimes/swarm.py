"""The swarm runtime: instances as services of Docker Swarm mode, handed over by the engine of a manager node.

Owns the way from a `Launch` to a service of one task and back; the parts are in `engine`. Swarm decides on which of its
nodes a task runs, and moves it when that node is lost or drained; the agent deals with a program that ends, and with
nothing else that Swarm does. One service for each instance, because Swarm can be told neither which task of a service
to end nor to wait until it has no open request; docs/decisions/0011 has the whole reason. What is where:

* a release that is an image runs on any node that can fetch it from `agent.swarm_registry`; without a registry, and
  when the release is a folder, on the manager's own node;
* requests go to the port that the task's node publishes for it, on all of that node's addresses;
* figures and commands beside the program are to be had where the task runs on the manager's own node.

A polite stop asks for a place that no node has: Swarm then ends the task with its own SIGTERM and SIGKILL, on
whichever node it is, and keeps how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.config import Config, platform_of
from agent.runtimes.base import (
    Capabilities,
    Endpoint,
    Executed,
    Handle,
    Launch,
    Observation,
    Refused,
    Runtime,
    Stats,
    Unavailable,
    Unknown,
)
from agent.runtimes.docker import NOTE
from agent.runtimes.engine import containers, executing, figures, handing, launching, output, preparing, tasks
from agent.runtimes.engine.ability import absent, capabilities, not_a_manager
from agent.runtimes.engine.client import Away, Declined, Engine, EngineError
from agent.runtimes.engine.entry import EngineEntry
from agent.runtimes.engine.launching import Surroundings
from agent.runtimes.engine.output import Output
from agent.runtimes.engine.overlays import Overlays
from agent.runtimes.engine.services import NO_MANAGER, Services
from agent.runtimes.engine.spreading import Spread
from agent.runtimes.engine.task_watch import TaskWatch
from agent.runtimes.engine.tasks import Verdict
from agent.runtimes.entering import Entered, Entry

log = logging.getLogger(__name__)

PLACED_WITHIN_S = 10.0
FETCHED_WITHIN_S = 300.0
_KILL_DEADLINE_S = 15.0
_OUTPUT_PATIENCE_S = 5.0
_LOOK_S = 0.1
_RELY_S = 30.0
_ELSEWHERE = "it runs on another node of the swarm: a command beside it is not to be had there"


@dataclass(frozen=True, slots=True)
class Settings:
    node: str
    platform: str
    instances_dir: Path
    uid_base: int
    log_bytes: int
    registry: str


class SwarmRuntime(Runtime):
    name = "swarm"

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._services = Services(engine)
        self._overlays = Overlays(engine, settings.platform)
        self._spread = Spread(engine, settings.platform, settings.registry)
        self._watch = TaskWatch(engine, settings.platform, settings.node)
        self._outputs: dict[str, Output] = {}
        self._places: dict[str, figures.Place] = {}

    async def probe(self) -> Capabilities:
        try:
            info = await self._engine.call(lambda client: {**client.info(), "api": client.api_version})
        except EngineError as error:
            return absent(str(error))
        if why := not_a_manager(info):
            return absent(why)
        found = capabilities(info, self._engine.url)
        swarm = info["Swarm"]
        said = [f"{swarm.get('Nodes', '?')} nodes, {swarm.get('Managers', '?')} of them managers"]
        if not self._spread.everywhere:
            said.append("agent.swarm_registry is not set: everything runs on this node")
        return replace(found, notes=[*found.notes[:1], *said]) if found.available else found

    async def start(self, launch: Launch) -> Handle:
        try:
            found = await self._find(launch.instance_id)
            if found is not None:
                handle = self._handle(found)
                if await self._runs(handle):
                    self._output(handle).follow()
                    return handle
                await self._clear(handle)
            wanted = await self._described(launch)
            service = await self._services.make(wanted)
        except Away as error:
            raise Unavailable(str(error)) from error
        except Declined as error:
            raise containers.why_not_created(error) from error
        handle = {"instance": launch.instance_id, "service": service}
        output.begin(launch.directory, service)
        await self._begun(handle)
        self._output(handle).follow()
        return handle

    async def _described(self, launch: Launch) -> dict[str, Any]:
        settings = self._settings
        swarm = await self._services.swarm()
        if why := not_a_manager({"Swarm": swarm}):
            raise Unavailable(why)
        network = await self._overlays.ensure(launch.app_id)
        prepared = await preparing.prepare(self._engine, launch, settings.uid_base)
        host_image = preparing.host_image(settings.platform)
        around = Surroundings(
            settings.platform, settings.node, network, settings.log_bytes, prepared.uid, host_image, prepared.binds
        )
        made = launching.container(launch, prepared.image, around)
        if launch.image:
            image = await self._spread.reference(prepared.image)
        else:
            await preparing.host_image_there(self._engine, settings.platform)
            image = str((await self._engine.call(lambda client: client.inspect_image(host_image)))["Id"])
        pinned = not launch.image or bool(launch.volumes) or not self._spread.everywhere
        alias = launch.env.get("OMNI_APP", f"app-{launch.app_id}")
        manager = str(swarm["NodeID"])
        return handing.service(made, launch, handing.Handing(image, manager, network, pinned, alias))

    async def _begun(self, handle: Handle) -> None:
        """Until its task runs or has ended. A service that Swarm cannot place is taken back."""
        clock = asyncio.get_running_loop().time
        placed_by, fetched_by = clock() + PLACED_WITHIN_S, clock() + FETCHED_WITHIN_S
        while True:
            try:
                seen = await self._services.verdict(str(handle["service"]))
            except EngineError as error:
                raise Unknown(str(error)) from error
            if seen.state == "running" or (seen.state == "ended" and seen.container):
                return
            late = clock() > (placed_by if tasks.is_unplaced(seen) else fetched_by)
            if seen.state == "ended" or late:
                with contextlib.suppress(EngineError):
                    await self._services.remove(str(handle["service"]))
                raise _why_not_begun(seen.why)
            await asyncio.sleep(_LOOK_S)

    async def recover(self, instance_id: int) -> Handle | None:
        try:
            found = await self._find(instance_id)
        except EngineError as error:
            raise Unknown(str(error)) from error
        return None if found is None else self._handle(found)

    async def observe(self, handle: Handle) -> Observation:
        try:
            seen = await self._services.verdict(str(handle["service"]))
            return replace(seen.observation(), oom=await self._for_want_of_memory(seen))
        except EngineError as error:
            raise Unknown(str(error)) from error

    async def _for_want_of_memory(self, seen: Verdict) -> bool:
        """Swarm does not tell; the engine does, where it is the one that ran it."""
        if seen.observation().signal != signal.SIGKILL or not await self._services.is_here(seen):
            return False
        try:
            about = await self._engine.call(lambda client: client.inspect_container(seen.container))
        except Declined:
            return False  # it is removed already
        return bool(about["State"].get("OOMKilled"))

    async def wait(self, handle: Handle) -> None:
        self._output(handle).follow()
        async with self._watch.of(str(handle["service"])) as event:
            while True:
                with contextlib.suppress(Unknown):
                    if (await self.observe(handle)).state != "running":
                        return
                event.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), _RELY_S)

    async def stop(self, handle: Handle) -> None:
        try:
            await self._services.park(str(handle["service"]))
        except EngineError as error:
            raise Unknown(str(error)) from error

    async def kill(self, handle: Handle) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + _KILL_DEADLINE_S
        try:
            await self._services.park(str(handle["service"]))
            while (seen := await self._services.verdict(str(handle["service"]))).state in ("running", "waiting"):
                if seen.container and await self._services.is_here(seen):
                    with contextlib.suppress(Declined):  # it may have ended meanwhile
                        await self._end(seen.container)
                if clock() > deadline:
                    raise Unknown("Swarm has not yet ended it")
                await asyncio.sleep(_LOOK_S)
        except EngineError as error:
            raise Unknown(str(error)) from error
        if seen.state == "ended" and not await self._output(handle).finish(_OUTPUT_PATIENCE_S):
            log.warning("instance %s: the end of its output is still on its way", handle["instance"])

    async def stats(self, handle: Handle) -> Stats:
        place = await self._place(handle)
        if place is None:
            return Stats(None, None, None)
        received, sent = place.network_bytes()
        return Stats(place.cpu_us(), place.memory_bytes(), place.memory_limit_bytes(), received, sent)

    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed:
        try:
            seen = await self._services.verdict(str(handle["service"]))
            if not await self._services.is_here(seen):
                raise Unknown(_ELSEWHERE)
            return await executing.execute(self._engine, seen.container, command, timeout_s)
        except EngineError as error:
            raise Unknown(str(error)) from error

    async def enter(self, launch: Launch, handle: Handle, entry: Entry) -> Entered:
        try:
            seen = await self._services.verdict(str(handle["service"]))
            if seen.state != "running":
                raise Unavailable(f"its task does not run{f': {seen.why}' if seen.why else ''}")
            if not await self._services.is_here(seen):
                raise Unavailable(_ELSEWHERE)
            return await EngineEntry.start(self._engine, seen.container, entry)
        except Away as error:
            raise Unknown(str(error)) from error
        except Declined as error:
            raise Unavailable(str(error)) from error

    async def listening(self, handle: Handle) -> tuple[int, ...] | None:
        place = await self._place(handle)
        return None if place is None else place.listening()

    async def endpoint(self, handle: Handle) -> Endpoint | None:
        """The address of the task's node, as the swarm knows it, and the port published there."""
        try:
            seen = await self._services.verdict(str(handle["service"]))
            if seen.state != "running" or seen.port is None:
                raise Unknown(f"it has no port yet{f': {seen.why}' if seen.why else ''}")
            node = await self._engine.call(lambda client: client.inspect_node(seen.node))
            swarm = await self._services.swarm()
        except EngineError as error:
            raise Unknown(str(error)) from error
        place = await self._place(handle)  # the engine's own proxy takes connections before the program does
        if place is not None and seen.inside not in place.listening():
            raise Unknown(f"nothing in it listens on port {seen.inside}")
        if swarm["NodeID"] == seen.node:
            return Endpoint(str(swarm["NodeAddr"]), seen.port, routed=True)
        return Endpoint(str(node["Status"]["Addr"]), seen.port, True, str(node["Description"]["Hostname"]))

    async def close(self) -> None:
        await self._watch.close()
        for one in self._outputs.values():
            await one.close()
        self._outputs.clear()
        self._engine.close()

    async def remove(self, handle: Handle) -> None:
        await self.kill(handle)
        try:
            about = await self._services.get(str(handle["service"]))
            await self._clear(handle)
            if about is not None:
                await self._overlays.leave(int(about["Spec"]["Labels"]["omni.app"]))
        except EngineError as error:
            raise Unknown(str(error)) from error

    async def strays(self) -> dict[int, Handle]:
        return await self._all([*launching.labels_of(self._settings.platform, self._settings.node)])

    async def of_this_manager(self) -> dict[int, Handle]:
        """Services that agents on this engine have handed over, whichever node of the platform they belong to."""
        try:
            info = await self._engine.call(lambda client: client.info())
        except EngineError as error:
            raise Unknown(str(error)) from error
        if not_a_manager(info):
            return {}
        manager = info["Swarm"]["NodeID"]
        return await self._all([*launching.labels_of(self._settings.platform), f"{handing.MANAGER}={manager}"])

    async def leave(self) -> None:
        await self._overlays.leave_all()

    async def _all(self, labels: list[str]) -> dict[int, Handle]:
        try:
            found = await self._services.list(labels)
        except Declined as error:
            if error.status == NO_MANAGER:  # it is no manager any more: what it handed over is another's to see to
                return {}
            raise Unknown(str(error)) from error
        except Away as error:
            raise Unknown(str(error)) from error
        return {int(one["Spec"]["Labels"][launching.INSTANCE]): self._handle(one) for one in found}

    async def _find(self, instance_id: int) -> dict[str, Any] | None:
        settings = self._settings
        try:
            found = await self._services.list(
                launching.labels_of(settings.platform, settings.node or None, instance_id)
            )
        except Declined as error:
            if error.status != NO_MANAGER:
                raise
            raise Away(str(error)) from error
        return found[0] if found else None

    async def _end(self, container: str) -> None:
        await self._engine.call(lambda client: client.kill(container, signal="SIGKILL"))

    async def _clear(self, handle: Handle) -> None:
        """Nothing of an ended service is needed any more, once its output is here."""
        await self._output(handle).finish(_OUTPUT_PATIENCE_S)
        await self._services.remove(str(handle["service"]))
        one = self._outputs.pop(str(handle["service"]), None)
        if one is not None:
            await one.close()
        self._places.pop(str(handle["service"]), None)

    async def _place(self, handle: Handle) -> figures.Place | None:
        service = str(handle["service"])
        known = self._places.get(service)
        if known is None or not Path(f"/proc/{known.pid}").exists():
            try:
                seen = await self._services.verdict(str(handle["service"]))
                if seen.state != "running" or not await self._services.is_here(seen):
                    return None
            except EngineError as error:
                raise Unknown(str(error)) from error
            known = figures.place_of(seen.pid, seen.container)
            if known is None:
                return None
            self._places[service] = known
        return known

    async def _runs(self, handle: Handle) -> bool:
        return (await self._services.verdict(str(handle["service"]))).state in ("running", "waiting")

    def _output(self, handle: Handle) -> Output:
        service = str(handle["service"])
        if service not in self._outputs:
            directory = self._settings.instances_dir / str(handle["instance"])
            self._outputs[service] = Output(self._engine, service, directory, lambda: self._runs(handle), endless=True)
        return self._outputs[service]

    @staticmethod
    def _handle(found: dict[str, Any]) -> Handle:
        return {"instance": int(found["Spec"]["Labels"][launching.INSTANCE]), "service": str(found["ID"])}


def of(config: Config) -> SwarmRuntime:
    """The runtime as the agent's configuration has it; also while no swarm is there."""
    instances_dir = Path(config.instances_dir)
    settings = Settings(
        config.node, config.platform, instances_dir, config.uid_base, config.log_max_bytes, config.swarm_registry
    )
    return SwarmRuntime(Engine(config.docker), settings)


def noted(instances_dir: Path) -> SwarmRuntime | None:
    """For whoever ends everything below a directory: the runtime on the engine that its agents used, if any."""
    try:
        engine = Engine(str(json.loads((instances_dir / NOTE).read_bytes())["engine"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (
        SwarmRuntime(engine, Settings("", platform_of(instances_dir), instances_dir, 0, 0, "")) if engine.url else None
    )


def _why_not_begun(why: str) -> Exception:
    if 'exec: "' in why and any(sign in why for sign in containers.NEVER_STARTS):
        return Refused(f"its command cannot be started: {why}")
    return Unavailable(f"the swarm does not start it: {why or 'it says nothing'}")
