"""`python -m agent.sweep --state DIR`: end every instance that is recorded under DIR/instances, whoever started it.

Owns the way down when the platform stops: SIGTERM to all, then SIGKILL to whole trees, then the cgroups, and the
packet filter. Records and logs stay: the next start finds instances that ended. Run it when no agent runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from pathlib import Path

from agent import facts as host
from agent.config import platform_of
from agent.runtimes import docker, swarm, watcher
from agent.runtimes.base import Handle, Runtime, RuntimeFault
from agent.runtimes.process import ProcessRuntime
from agent.store import RECORD, SWEPT
from sandbox import cgroups, network
from sandbox.probe import Facts

STOP_S = 10.0
LONGEST_STOP_S = 20.0
_POLL_S = 0.05
_CLEAR_TRIES = 40


async def sweep(instances_dir: Path, longest_stop_s: float = LONGEST_STOP_S) -> int:
    """End them all, at once; answers how many there were."""
    platform = platform_of(instances_dir)
    # Whatever the facts of the start were, they are in each handle; nothing new is started here.
    runtime = ProcessRuntime("", instances_dir, platform, Facts("none", "none", "shared"), 0)
    handles = await _living(runtime, instances_dir, platform)
    done = await asyncio.gather(
        *(_end(runtime, instances_dir, handle, longest_stop_s) for handle in handles), return_exceptions=True
    )
    for name in cgroups.names(f"{platform}-"):
        await _clear(name)
    for problem in done:
        if isinstance(problem, BaseException):
            raise problem
    services = await _sweep_services(instances_dir, longest_stop_s)  # first: Swarm starts its containers again
    return len(handles) + services + await _sweep_containers(instances_dir, longest_stop_s)


async def _sweep_containers(instances_dir: Path, longest_stop_s: float) -> int:
    """Those of every node of this host, on the engine that its agents last used."""
    runtime = docker.noted(instances_dir)
    if runtime is None:
        return 0
    try:
        handles = list((await runtime.of_all_nodes()).values())
        await asyncio.gather(*(_end(runtime, instances_dir, handle, longest_stop_s) for handle in handles))
        await runtime.leave()
    except RuntimeFault as error:
        sys.stderr.write(f"sweep: containers cannot be ended: {error}\n")
        return 0
    finally:
        await runtime.close()
    return len(handles)


async def _sweep_services(instances_dir: Path, longest_stop_s: float) -> int:
    """Those that were handed to a swarm by the engine of this host; other hosts' are theirs."""
    runtime = swarm.noted(instances_dir)
    if runtime is None:
        return 0
    try:
        handles = list((await runtime.of_this_manager()).values())
        await asyncio.gather(*(_end(runtime, instances_dir, handle, longest_stop_s) for handle in handles))
        if handles:
            await runtime.leave()
    except RuntimeFault as error:
        sys.stderr.write(f"sweep: services of the swarm cannot be ended: {error}\n")
        return 0
    finally:
        await runtime.close()
    return len(handles)


async def _clear(name: str) -> None:
    """A cgroup that belongs to no record any more."""
    group = cgroups.Group.open(name)
    for _ in range(_CLEAR_TRIES):
        if group is None:
            return
        await asyncio.to_thread(group.kill)
        if group.remove():
            return
        await asyncio.sleep(_POLL_S)


async def _living(runtime: ProcessRuntime, instances_dir: Path, platform: str) -> list[Handle]:
    ids = {int(path.parent.name) for path in instances_dir.glob(f"[0-9]*/{watcher.HANDLE}")}
    labelled = watcher.labelled(platform)
    handles = []
    for instance_id in sorted(ids | set(labelled)):
        handle = await runtime.recover(instance_id) or runtime.bare_handle(instance_id)
        if instance_id in labelled or (await runtime.observe(handle)).state == "running":
            handles.append(handle)
    return handles


async def _end(runtime: Runtime, instances_dir: Path, handle: Handle, longest_stop_s: float) -> None:
    directory = instances_dir / str(handle["instance"])
    patience = min(_stop_timeout(directory), longest_stop_s)
    ran = (await runtime.observe(handle)).state == "running" or isinstance(runtime, ProcessRuntime)
    await runtime.stop(handle)
    try:
        async with asyncio.timeout(patience):
            while (await runtime.observe(handle)).state == "running":
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        pass
    await runtime.remove(handle)
    if ran and (directory / RECORD).exists():
        (directory / SWEPT).touch()


def _stop_timeout(directory: Path) -> float:
    try:
        return float(json.loads((directory / RECORD).read_bytes())["assignment"]["stop_timeout_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return STOP_S


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.sweep", description="Ends all instances of this host.")
    parser.add_argument("--state", type=Path, required=True, help="the platform's state directory")
    parser.add_argument("--keep-filter", action="store_true", help="leave the packet filter in place")
    parser.add_argument("--longest-stop", type=float, default=LONGEST_STOP_S, help="seconds before SIGKILL at most")
    arguments = parser.parse_args(argv)
    instances_dir = arguments.state / "instances"
    try:
        ended = asyncio.run(sweep(instances_dir, arguments.longest_stop))
    except RuntimeFault as error:
        sys.stderr.write(f"sweep: {error}\n")
        return 1
    if not arguments.keep_filter:
        with contextlib.suppress(network.Unavailable, OSError):  # then there was none
            network.remove(host.table_name(platform_of(instances_dir)))
    sys.stdout.write(f"{ended} instances ended\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
