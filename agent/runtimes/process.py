"""The process runtime: instances as sandboxed processes of this host.

Owns the way from a `Launch` to a running tree and back; what happens in between is the sandbox package's (isolation,
limits) and `watcher`'s (how it ended). What a program finds:

* `/app`, its release: shared by every instance of that release on this host, hence read-only; the working directory.
* `/home/app` ($HOME), its own and writable; kept over restarts in place, gone with the instance.
* its app's volumes, each at its path and writable; they stay.
* `/tmp`, its own, in memory (it counts as the instance's), empty at each start.
* the host's network: it listens on $PORT.

Where bubblewrap does not work the same program runs without these walls, under its own user if we are root, with the
paths pointing at the real places; `/nodes` says so. An exit status above 128 counts as the signal it stands for: that
is all that a shell or bubblewrap passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from agent import clock, procfs
from agent.runtimes import inside, kept, process_entry, watcher
from agent.runtimes.base import (
    Capabilities,
    Executed,
    Handle,
    Launch,
    Observation,
    Refused,
    Runtime,
    RuntimeFault,
    Stats,
    Unavailable,
    Unknown,
)
from agent.runtimes.entering import Child, Entered, Entry
from agent.runtimes.shell import shell_line
from agent.runtimes.tree import Tree
from sandbox import bubblewrap, cgroups, identity
from sandbox.cgroups import Group
from sandbox.probe import Facts

_OUTPUT = 2000
_POLITE_S = 0.2
_REMOVE_TRIES = 40


class ProcessRuntime(Runtime):
    """`platform` names this installation on this host, so that two of them never touch each other's processes."""

    name = "process"

    def __init__(self, node: str, instances_dir: Path, platform: str, facts: Facts, uid_base: int) -> None:
        self._node = node
        self._instances_dir = instances_dir
        self._platform = platform
        self._facts = facts
        self._uid_base = uid_base
        self._sandboxed = facts.isolation == "bubblewrap"
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._polite: dict[int, asyncio.Task[None]] = {}

    async def probe(self) -> Capabilities:
        facts = self._facts
        return Capabilities(True, facts.isolation, facts.limits, facts.network, list(facts.notes))

    async def start(self, launch: Launch) -> Handle:
        handle = await self.recover(launch.instance_id)
        if handle is not None:
            if self._tree(handle).watched():
                return handle
            await self._tree(handle).kill()
        watcher.forget(launch.directory)
        group = self._group(launch)
        try:
            spec = self._spec(launch, ["/bin/sh", "-c", shell_line(launch.command)])
            argv, env = self._command(spec, launch, group)
            return self._spawn(launch, argv, env, group)
        except RuntimeFault:
            if group is not None:
                group.remove()  # nothing was started: leave nothing
            raise

    async def recover(self, instance_id: int) -> Handle | None:
        return watcher.read_handle(self._instances_dir / str(instance_id))

    async def observe(self, handle: Handle) -> Observation:
        tree = self._tree(handle)
        self._reap(tree.pid)
        if handle.get("boot_id") == clock.boot_id() and tree.watched():
            return Observation("running")
        end = watcher.ended(tree.directory)
        if end is None or end.status is None:
            return Observation("absent")
        oom = tree.group is not None and tree.group.oom_kills() > int(handle.get("oom_kills", 0)) and end.status != 0
        if end.status > 128:
            return Observation("ended", signal=end.status - 128, oom=oom)
        return Observation("ended", code=end.status, oom=oom)

    async def wait(self, handle: Handle) -> None:
        tree = self._tree(handle)
        try:
            fd = os.pidfd_open(tree.pid)
        except (OSError, AttributeError):
            while tree.watched():
                await asyncio.sleep(0.5)
            self._reap(tree.pid)
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            # The pid may be another process's by now: the descriptor is opened first, then the start time compared.
            if tree.watched():
                await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        self._reap(tree.pid)

    async def stop(self, handle: Handle) -> None:
        tree = self._tree(handle)
        polite = asyncio.create_task(tree.terminate())
        # Part of it may have to wait for children of a shell: that goes on beside the caller, until the end at most.
        self._polite[tree.pid] = polite
        await asyncio.wait([polite], timeout=_POLITE_S)

    async def kill(self, handle: Handle) -> None:
        tree = self._tree(handle)
        polite = self._polite.pop(tree.pid, None)
        if polite is not None:
            polite.cancel()
        await tree.kill()
        self._reap(tree.pid)

    async def stats(self, handle: Handle) -> Stats:
        tree = self._tree(handle)
        if tree.group is not None:
            group = tree.group
            return Stats(group.cpu_usage_us(), group.memory_current(), group.memory_limit())
        table = procfs.scan()
        members = procfs.descendants(table, {tree.pid} if tree.watched() else ())
        ticks = sum(table[pid].ticks for pid in members)
        pages = sum(table[pid].rss for pid in members)
        return Stats(ticks * 1_000_000 // procfs.TICKS, pages * procfs.PAGE, None)

    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed:
        spec = self._spec(launch, ["/bin/sh", "-c", command], die_with_parent=True)
        argv, env = self._command(spec, launch, self._tree(handle).group, info=False)
        return await asyncio.to_thread(_run, argv, env, timeout_s)

    async def enter(self, launch: Launch, handle: Handle, entry: Entry) -> Entered:
        spec = self._spec(launch, list(entry.argv))
        spec.env[watcher.LABEL] = watcher.label(self._platform, self._node, launch.instance_id)
        spec.env.setdefault("TERM", "xterm")
        told = process_entry.told(spec, self._facts, self._tree(handle), entry.tty)
        try:
            return await Child.start(process_entry.COMMAND, entry, told)
        except OSError as error:
            raise Unavailable(f"cannot start a process: {error}") from error

    async def listening(self, handle: Handle) -> tuple[int, ...] | None:
        members = self._tree(handle).members()
        return tuple(await asyncio.to_thread(procfs.listening, members))

    async def remove(self, handle: Handle) -> None:
        await self.kill(handle)
        group = self._tree(handle).group
        for _ in range(_REMOVE_TRIES):
            if group is None or group.remove():
                return
            await asyncio.sleep(0.05)  # what was killed may not be reaped yet
        raise Unknown(f"cgroup of instance {handle['instance']} cannot be removed")

    async def strays(self) -> dict[int, Handle]:
        found: dict[int, Handle] = {}
        for instance_id in watcher.labelled(self._platform, self._node):
            kept = await self.recover(instance_id)
            found[instance_id] = kept or self.bare_handle(instance_id)
        return found

    def bare_handle(self, instance_id: int) -> Handle:
        """For processes whose handle is lost: good for `kill` and `remove`, which find them by other ways, too."""
        return self._handle(instance_id, 0, 0, self._group_name(instance_id), 0)

    def _spec(self, launch: Launch, argv: list[str], die_with_parent: bool = False) -> bubblewrap.Spec:
        uid = identity.uid_for("app", launch.app_id, self._uid_base)
        binds = [
            *bubblewrap.runtime_binds(),
            bubblewrap.Bind(str(launch.tree), inside.TREE),
            bubblewrap.Bind(str(launch.home), inside.HOME, writable=True),
            *(bubblewrap.Bind(str(volume.source), volume.target, writable=True) for volume in launch.volumes),
        ]
        return bubblewrap.Spec(
            argv=argv,
            env={**inside.environment(), **launch.env},
            cwd=inside.TREE,
            binds=binds,
            uid=uid,
            gid=uid,
            die_with_parent=die_with_parent,
            hostname=launch.hostname,
            tmp_mb=inside.TMP_MB,
        )

    def _command(
        self, spec: bubblewrap.Spec, launch: Launch, group: Group | None, info: bool = True
    ) -> tuple[list[str], dict[str, str]]:
        try:
            argv = bubblewrap.command(spec, self._facts, watcher.INFO_FD if self._sandboxed and info else None)
            env = bubblewrap.environment(spec, self._facts)
        except ValueError as error:
            raise Refused(str(error)) from error
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error
        env[watcher.LABEL] = watcher.label(self._platform, self._node, launch.instance_id)
        return (group.enter(argv) if group is not None else argv), env

    def _spawn(self, launch: Launch, argv: list[str], env: dict[str, str], group: Group | None) -> Handle:
        uid = identity.uid_for("app", launch.app_id, self._uid_base) if self._facts.user_switch else None
        kept.prepare(launch, uid)
        try:
            launch.home.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                os.chown(launch.home, uid, uid)
            with _append(launch.stdout, uid) as stdout, _append(launch.stderr, uid) as stderr:
                child = watcher.spawn(argv, env, launch.directory, stdout, stderr, self._sandboxed)
        except OSError as error:
            raise Unavailable(f"cannot start a process: {error}") from error
        self._children[child.pid] = child
        process = procfs.read(child.pid)
        start_time = process.start_time if process is not None else 0
        kills = group.oom_kills() if group is not None else 0
        name = group.name if group is not None else None
        handle = self._handle(launch.instance_id, child.pid, start_time, name, kills)
        try:
            watcher.write_handle(launch.directory, handle)
        except OSError as error:
            child.communicate()  # closes its input: it ends without having begun
            raise Unavailable(f"cannot write {watcher.HANDLE}: {error}") from error
        watcher.release(child)
        return handle

    def _handle(self, instance_id: int, pid: int, start_time: int, cgroup: str | None, oom_kills: int) -> Handle:
        return {
            "instance": instance_id,
            "pid": pid,
            "start_time": start_time,
            "boot_id": clock.boot_id(),
            "cgroup": cgroup,
            "oom_kills": oom_kills,
            "sandboxed": self._sandboxed,
        }

    def _group_name(self, instance_id: int) -> str:
        return f"{self._platform}-{instance_id}"

    def _group(self, launch: Launch) -> Group | None:
        if self._facts.limits == "none":
            return None
        name = self._group_name(launch.instance_id)
        try:
            return Group.create(name, launch.memory_bytes, launch.cpu_limit, launch.cpu_weight, inside.PIDS)
        except (cgroups.Unavailable, OSError) as error:
            raise Unavailable(f"cannot limit it: {error}") from error

    def _tree(self, handle: Handle) -> Tree:
        instance_id = int(handle["instance"])
        name = handle.get("cgroup")
        return Tree(
            instance_id=instance_id,
            directory=self._instances_dir / str(instance_id),
            pid=int(handle["pid"]),
            start_time=int(handle["start_time"]),
            platform=self._platform,
            sandboxed=bool(handle.get("sandboxed", True)),
            group=Group.open(name) if name else None,
        )

    def _reap(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            del self._children[pid]


@contextlib.contextmanager
def _append(path: Path, uid: int | None) -> Iterator[int]:
    """The file open for appending; it belongs to the program's user, who may open it again by /dev/stdout."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if uid is not None:
            os.fchown(fd, uid, uid)
        yield fd
    finally:
        os.close(fd)


def _run(argv: list[str], env: dict[str, str], timeout_s: float) -> Executed:
    """Run to the end or to the time-out; output is both streams, cut."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd="/",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
            code: int | None = process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1)  # something that left its session may still hold the pipe
            output, code = b"", None
    return Executed(code, output[-_OUTPUT:].decode("utf-8", "replace"))
