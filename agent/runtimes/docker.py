"""The docker runtime: instances as containers of this host's engine, Docker or Podman.

Owns the way from a `Launch` to a container and back; the parts are in `engine`. The engine is what remembers: a
container carries platform, node and instance in its labels, and one name for each instance, so that an agent that
restarts finds it, and a second start of the same instance is refused by the engine itself. A container is made anew at
each start. What a program finds:

* a release that is an image: the image's own files, user, command; what it writes is gone with the next start;
* a release that is a folder: the same as in the process runtime's sandbox, the host's system read-only, /app, $HOME;
* its app's volumes, bound from directories of this host, each at its path;
* a network of its app's own; it listens on $PORT, which is the lowest port that its image exposes, if any.

With the engine away everything runs on (`live-restore`, else containers end when the engine comes back); starts wait.
An exit status above 128 counts as the signal it stands for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
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
from agent.runtimes.engine import containers, executing, figures, launching, output, preparing
from agent.runtimes.engine.ability import absent, capabilities
from agent.runtimes.engine.client import Away, Declined, Engine, EngineError
from agent.runtimes.engine.ends import Ends
from agent.runtimes.engine.entry import EngineEntry
from agent.runtimes.engine.images import Images
from agent.runtimes.engine.launching import Surroundings
from agent.runtimes.engine.looking import Looking
from agent.runtimes.engine.networks import Networks, is_loopback
from agent.runtimes.engine.output import Output
from agent.runtimes.entering import Entered, Entry
from agent.store import write_atomically

log = logging.getLogger(__name__)

NOTE = "engine.json"
_KILL_DEADLINE_S = 15.0
_OUTPUT_PATIENCE_S = 5.0
_SETTLES_S = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """`address` is the node's: on loopback nobody but this host comes, and containers are reached at their own."""

    node: str
    platform: str
    instances_dir: Path
    address: str
    uid_base: int
    log_bytes: int
    subnets: str


class DockerRuntime(Runtime):
    name = "docker"

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._networks = Networks(engine, settings.platform, settings.subnets)
        self._ends = Ends(engine, settings.platform)
        self._looking = Looking(engine)
        self._outputs: dict[str, Output] = {}
        self._places: dict[str, figures.Place] = {}
        self._settled: set[str] = set()
        self.images = Images(engine, settings.platform)

    async def probe(self) -> Capabilities:
        try:
            info = await self._engine.call(lambda client: {**client.info(), "api": client.api_version})
        except EngineError as error:
            return absent(str(error))
        return capabilities(info, self._engine.url)

    async def start(self, launch: Launch) -> Handle:
        try:
            try:
                container = await self._create(launch)
            except Declined as error:
                # Asked only now: nearly always there is none, and where many start each question counts.
                found = await self._find(launch.instance_id)
                if found is not None and containers.runs_by_state(found["State"]):
                    self._output(found["Id"], launch.instance_id).follow()
                    return {"instance": launch.instance_id, "container": str(found["Id"])}
                await self._make_way(error, launch, found)
                container = await self._create(launch)
        except Away as error:
            raise Unavailable(str(error)) from error
        except Declined as error:
            raise containers.why_not_created(error) from error
        output.begin(launch.directory, container)
        await self._run(container, launch)
        self._output(container, launch.instance_id).follow()
        return {"instance": launch.instance_id, "container": container}

    async def _create(self, launch: Launch) -> str:
        made = await self._described(launch)
        return await self._engine.call(lambda client: containers.create(client, made), lane="change")

    async def _make_way(self, refused: Declined, launch: Launch, found: dict[str, Any] | None) -> None:
        """Mend what the engine refused a container for, as far as that is ours; else raise what it said."""
        self._networks.forget(launch.app_id)
        if found is not None:
            await self._clear(found["Id"], launch.instance_id)  # of the last start
        elif refused.status == 404 and not launch.image:
            await preparing.host_image_there(self._engine, self._settings.platform)
        else:
            raise refused

    async def _described(self, launch: Launch) -> launching.Container:
        settings = self._settings
        network = await self._networks.ensure(launch.app_id)
        prepared = await preparing.prepare(self._engine, launch, settings.uid_base)
        direct = is_loopback(settings.address) and self._networks.is_here(launch.app_id)
        around = Surroundings(
            platform=settings.platform,
            node=settings.node,
            network=network,
            log_bytes=settings.log_bytes,
            uid=prepared.uid,
            host_image=preparing.host_image(settings.platform),
            binds=prepared.binds,
            publish=None if direct else settings.address,
        )
        return launching.container(launch, prepared.image, around)

    async def _run(self, container: str, launch: Launch) -> None:
        try:
            await self._engine.call(lambda client: client.start(container), lane="change")
        except Away as error:
            raise Unknown(str(error)) from error
        except Declined as error:
            self._networks.forget(launch.app_id)
            with contextlib.suppress(EngineError):  # nothing was started: leave nothing
                await self._remove(container)
            text = str(error)
            if 'exec: "' in text and any(sign in text for sign in containers.NEVER_STARTS):
                raise Refused(f"its command cannot be started: {text}") from error
            raise Unavailable(text) from error

    async def recover(self, instance_id: int) -> Handle | None:
        try:
            found = await self._find(instance_id)
        except EngineError as error:
            raise Unknown(str(error)) from error
        return None if found is None else {"instance": instance_id, "container": str(found["Id"])}

    async def observe(self, handle: Handle) -> Observation:
        try:
            state = (await self._inspect(handle))["State"]
        except Declined as error:
            if error.status == 404:
                return Observation("absent")
            raise Unknown(str(error)) from error
        except Away as error:
            raise Unknown(str(error)) from error
        if state.get("Status") == "exited" and state.get("ExitCode") and handle["container"] not in self._settled:
            await asyncio.sleep(_SETTLES_S)  # that it was for want of memory is told a moment after the end itself
            self._settled.add(handle["container"])
            return await self.observe(handle)
        return containers.observation(state)

    async def wait(self, handle: Handle) -> None:
        container = str(handle["container"])
        self._output(container, int(handle["instance"])).follow()
        async with self._ends.of(container) as event:
            while True:
                # Nobody knows while the engine is away: the container runs on, so do we.
                with contextlib.suppress(Away):
                    if not await self._running(container):
                        return
                event.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), self._ends.pause_s)

    async def stop(self, handle: Handle) -> None:
        from docker.errors import APIError  # as late as the engine itself

        container = str(handle["container"])

        def ask(client: Any) -> None:
            asked = client.inspect_container(container)["Config"].get("StopSignal") or "SIGTERM"
            try:
                client.kill(container, signal=asked)
            except APIError:  # Podman answers 500 for one that has ended
                if containers.runs_by_state(client.inspect_container(container)["State"]):
                    raise

        try:
            await self._engine.call(ask)
        except Declined as error:
            if error.status not in (404, 409):  # gone, or not running
                raise Unknown(str(error)) from error
        except Away as error:
            raise Unknown(str(error)) from error

    async def kill(self, handle: Handle) -> None:
        container = str(handle["container"])
        deadline = asyncio.get_running_loop().time() + _KILL_DEADLINE_S
        try:
            while containers.runs_by_state((await self._inspect(handle))["State"]):
                with contextlib.suppress(Declined):  # it may have ended meanwhile
                    await self._engine.call(lambda client: client.kill(container, signal="SIGKILL"))
                if asyncio.get_running_loop().time() > deadline:
                    raise Unknown("it is still there after SIGKILL")
                await asyncio.sleep(0.02)
        except Declined as error:
            if error.status != 404:
                raise Unknown(str(error)) from error
            return
        except Away as error:
            raise Unknown(str(error)) from error
        if not await self._output(container, int(handle["instance"])).finish(_OUTPUT_PATIENCE_S):
            log.warning("instance %s: the end of its output is still on its way", handle["instance"])

    async def stats(self, handle: Handle) -> Stats:
        place = await self._place(handle)
        if place is None:
            return Stats(None, None, None)
        received, sent = place.network_bytes()
        return Stats(place.cpu_us(), place.memory_bytes(), place.memory_limit_bytes(), received, sent)

    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed:
        try:
            return await executing.execute(self._engine, str(handle["container"]), command, timeout_s)
        except EngineError as error:
            raise Unknown(str(error)) from error

    async def enter(self, launch: Launch, handle: Handle, entry: Entry) -> Entered:
        try:
            return await EngineEntry.start(self._engine, str(handle["container"]), entry)
        except Away as error:
            raise Unknown(str(error)) from error
        except Declined as error:
            raise Unavailable(str(error)) from error

    async def listening(self, handle: Handle) -> tuple[int, ...] | None:
        place = await self._place(handle)
        return None if place is None else place.listening()

    async def endpoint(self, handle: Handle) -> Endpoint | None:
        try:
            about = await self._inspect(handle)
        except EngineError as error:
            raise Unknown(str(error)) from error
        labels, networks = about["Config"]["Labels"], about["NetworkSettings"]["Networks"]
        port = int(labels[launching.PORT])
        addresses = [network["IPAddress"] for network in networks.values() if network.get("IPAddress")]
        if not addresses or not self._networks.is_here(int(labels["omni.app"])):
            return None
        return Endpoint(addresses[0], port, routed=labels[launching.DIRECT] == "yes")

    async def close(self) -> None:
        await self._ends.close()
        for one in self._outputs.values():
            await one.close()
        self._outputs.clear()
        self._engine.close()

    async def remove(self, handle: Handle) -> None:
        container, instance_id = str(handle["container"]), int(handle["instance"])
        await self.kill(handle)
        try:
            about = await self._inspect(handle)
            await self._clear(container, instance_id)
            await self._networks.leave(int(about["Config"]["Labels"]["omni.app"]))
        except Declined as error:
            if error.status != 404:
                raise Unknown(str(error)) from error
        except Away as error:
            raise Unknown(str(error)) from error

    async def strays(self) -> dict[int, Handle]:
        return await self._all(self._settings.node)

    async def of_all_nodes(self) -> dict[int, Handle]:
        """Containers of this platform, whichever node of this host they belong to."""
        return await self._all(None)

    async def _all(self, node: str | None) -> dict[int, Handle]:
        try:
            found = await self._looking.list(launching.labels_of(self._settings.platform, node))
        except EngineError as error:
            raise Unknown(str(error)) from error
        ids = {int(one["Labels"][launching.INSTANCE]): str(one["Id"]) for one in found}
        return {instance: {"instance": instance, "container": container} for instance, container in ids.items()}

    async def leave(self) -> None:
        """Nothing of this platform is to be left on the engine; images come again from their packages."""
        await self.images.discard_all()
        with contextlib.suppress(EngineError):
            name = preparing.host_image(self._settings.platform)
            await self._engine.call(lambda client: client.remove_image(name, noprune=True))

    async def _find(self, instance_id: int) -> dict[str, Any] | None:
        platform, node = self._settings.platform, self._settings.node
        labels = launching.labels_of(platform, node or None, instance_id)
        return await self._looking.find(launching.name_of(platform, instance_id), labels)

    async def _inspect(self, handle: Handle) -> dict[str, Any]:
        return await self._looking.at(str(handle["container"]))

    async def _running(self, container: str) -> bool:
        try:
            return containers.runs_by_state((await self._looking.at(container))["State"])
        except Declined:
            return False

    async def _clear(self, container: str, instance_id: int) -> None:
        """Nothing of an ended container is needed any more, once its output is here."""
        await self._output(container, instance_id).finish(_OUTPUT_PATIENCE_S)
        await self._remove(container)
        one = self._outputs.pop(container, None)
        if one is not None:
            await one.close()
        self._places.pop(container, None)
        self._settled.discard(container)

    async def _remove(self, container: str) -> None:
        try:
            await self._engine.call(
                lambda client: client.remove_container(container, v=True, force=True), lane="change"
            )
        except Declined as error:
            if error.status not in (404, 409):  # gone, or going
                raise

    async def _place(self, handle: Handle) -> figures.Place | None:
        container = str(handle["container"])
        known = self._places.get(container)
        if known is None or not Path(f"/proc/{known.pid}").exists():
            try:
                pid = int((await self._inspect(handle))["State"]["Pid"])
            except EngineError as error:
                raise Unknown(str(error)) from error
            known = figures.place_of(pid, container)
            if known is None:
                return None
            self._places[container] = known
        return known

    def _output(self, container: str, instance_id: int) -> Output:
        if container not in self._outputs:
            directory = self._settings.instances_dir / str(instance_id)
            self._outputs[container] = Output(self._engine, container, directory, lambda: self._running(container))
        return self._outputs[container]


def of(config: Config) -> DockerRuntime:
    """The runtime as the agent's configuration has it; also while no engine is there."""
    instances_dir = Path(config.instances_dir)
    settings = Settings(
        node=config.node,
        platform=config.platform,
        instances_dir=instances_dir,
        address=config.address,
        uid_base=config.uid_base,
        log_bytes=config.log_max_bytes,
        subnets=config.docker_subnets,
    )
    instances_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(instances_dir / NOTE, {"engine": config.docker, "subnets": config.docker_subnets})
    return DockerRuntime(Engine(config.docker), settings)


def images_of(runtime: Runtime | None) -> Images | None:
    return runtime.images if isinstance(runtime, DockerRuntime) else None


def noted(instances_dir: Path) -> DockerRuntime | None:
    """For whoever ends everything below a directory: the runtime that its agents used, if there is an engine."""
    try:
        note = json.loads((instances_dir / NOTE).read_bytes())
        engine, subnets = Engine(str(note["engine"])), str(note["subnets"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not engine.url:
        return None
    return DockerRuntime(engine, Settings("", platform_of(instances_dir), instances_dir, "", 0, 0, subnets))
