"""One instance, kept as it is wanted: asks `agent.plan` what to do next, does it, and asks again.

Owns the instance's record while the agent lives, its process by way of a runtime, its health checks and its output
files. Every effect is written to disk before or right after it happens, so that another agent can go on anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent import clock, lifecycle, probes
from agent.health import HealthState, pause, step
from agent.logs.tail import NAMES, Tail
from agent.packages import Packages
from agent.plan import Action, Process, Situation, decide
from agent.ports import NoPort, Ports
from agent.protocol import Assignment, Exit, HealthCheck, Observed, Probe
from agent.record import Record
from agent.runtimes.base import (
    Endpoint,
    Executed,
    Launch,
    Mounted,
    Refused,
    Runtime,
    RuntimeFault,
    Unavailable,
    Unknown,
)
from agent.runtimes.entering import Entered, Entry
from agent.store import SWEPT, Store
from observing import journal, tracing

log = logging.getLogger(__name__)

_AFTER_FAULT_S = 2.0
LOCATED_S = 1.0  # asking a runtime where a program is costs more than asking the program
SILENT_S = 1.0  # that a program does not listen before it could is news to nobody: a report for each of many that start
PROCESS_SETTLES_S = 1.0  # a process that ends sooner was never up, where nothing else is asked of it


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all instances of an agent share. `taken` are the ports of the others."""

    address: str
    store: Store
    packages: Packages
    ports: Ports
    taken: Callable[[], Iterable[int]]
    report: Callable[[Observed], None]
    deleted: Callable[[int], None]
    leased: Callable[[], bool] = lambda: True


class Instance:
    def __init__(self, record: Record, runtime: Runtime, tail: Tail, around: Surroundings) -> None:
        self.record = record
        self.tail = tail
        self.runtime = runtime
        self._around = around
        self._process: Process = "none"
        self._wake = asyncio.Event()
        self._companions: list[asyncio.Task[None]] = []
        self._endpoint: Endpoint | None = None
        self._located_at = 0.0

    async def run(self) -> None:
        """Until the instance is deleted. A fault nobody foresaw is logged and tried again: others must not suffer."""
        adopted = False
        while not adopted:
            try:
                await self._adopt()
                adopted = True
            except RuntimeFault as error:
                log.warning("instance %s cannot be taken over yet: %s", self.record.id, error)
                await asyncio.sleep(_AFTER_FAULT_S)
            except Exception:
                log.exception("instance %s cannot be taken over", self.record.id)
                await asyncio.sleep(_AFTER_FAULT_S)
        while True:
            leased = not self.record.assignment.singleton or self._around.leased()
            action = decide(Situation(self.record, self._process, self.log_done(), clock.monotonic(), leased))
            try:
                if action.kind == "delete":
                    await self._delete()
                    return
                await self._perform(action)
            except Exception:
                log.exception("instance %s: %s failed", self.record.id, action.kind)
                await asyncio.sleep(_AFTER_FAULT_S)

    def assign(self, assignment: Assignment) -> None:
        self._keep(lifecycle.assigned(self.record, assignment))
        self._wake.set()

    def orphan(self) -> None:
        if not self.record.orphan:
            self._keep(lifecycle.orphaned(self.record))
            self._wake.set()

    @property
    def runs(self) -> bool:
        return self._runs()

    def nudge(self) -> None:
        self._wake.set()

    async def enter(self, entry: Entry) -> Entered:
        """Run a command among its processes. Raises RuntimeFault."""
        if not self._runs():
            raise Unavailable("the instance does not run")
        return await self.runtime.enter(self._launch(), self._handle(), entry)

    def log_done(self) -> bool:
        return not self.tail.waiting()

    async def close(self) -> None:
        """The agent ends, the instance does not."""
        await self._leave_companions()
        self.tail.save()
        self.tail.close()

    async def _perform(self, action: Action) -> None:
        if action.kind == "wait":
            await self._wait(action.until)
            return
        journal.request_id.set(self.record.assignment.request_id or journal.NONE)
        log.info("instance %s: %s (%s)", self.record.id, action.kind, action.reason)
        if action.kind == "start":
            await self._start()
        elif action.kind == "drain":
            self._keep(lifecycle.drained_from(self.record, clock.monotonic()))
        elif action.kind == "terminate":
            self._keep(lifecycle.terminated(self.record, clock.monotonic()))
            await self.runtime.stop(self._handle())
        elif action.kind == "kill":
            await self._kill()
        elif action.kind == "record_end":
            await self._record_end()
        elif action.kind == "finish":
            self._keep(lifecycle.stopped(self.record))

    async def _wait(self, until: float | None) -> None:
        timeout = None if until is None else max(0.0, until - clock.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        self._wake.clear()

    async def _adopt(self) -> None:
        """Take over what an earlier agent left, whatever it was doing at its end."""
        self._take_mark()
        self._keep(lifecycle.rebooted(self.record, clock.boot_id()))
        await self._claim_unwritten_start()
        if self.record.handle is None:
            return
        if (await self.runtime.observe(self.record.handle)).state == "running":
            log.info("instance %s: adopted %s", self.record.id, self.record.handle)
            self._attend()
        else:
            self._process = "ended"

    def _take_mark(self) -> None:
        """Whether it was ended from outside, with the platform or with its node's lease: that is no crash."""
        swept = self._around.store.directory(self.record.id) / SWEPT
        if swept.exists():
            self._keep(lifecycle.interrupted(self.record))
            swept.unlink()

    async def _claim_unwritten_start(self) -> None:
        """An agent may die after a start and before writing it down: the runtime still knows the handle."""
        found = await self.runtime.recover(self.record.id)
        if found is None or self.record.handle is not None or found == self.record.past_handle:
            return
        if self.record.observed.status == "starting":
            self._keep(lifecycle.started(self.record, found, clock.monotonic(), clock.rfc3339()))
        else:
            await self.runtime.kill(found)  # nobody knows its port or what it was started with

    async def _start(self) -> None:
        wished = self.record.assignment
        with tracing.span("start instance", kind="consumer", instance=wished.id, app=wished.app, slot=wished.slot):
            await self._start_as(wished)

    async def _start_as(self, wished: Assignment) -> None:
        try:
            if wished.release.kind == "image" and self.runtime.name == "process":
                raise Refused("the release is an image, and the app's runtime is process")
            with tracing.span("package", version=wished.release.version):
                await self._around.packages.ensure(wished.release)
            if self.record.assignment != wished:
                return  # the wish changed while the package was on its way
            port = self._around.ports.choose(set(self._around.taken()) - {self.record.port}, self.record.port)
            self.tail.start_over()
            address = f"{self._around.address}:{port}"
            self._keep(lifecycle.starting(self.record, port, address, self.tail.sizes()))
            with tracing.span("runtime", runtime=self.runtime.name):
                handle = await self.runtime.start(self._launch())
            self._keep(lifecycle.started(self.record, handle, clock.monotonic(), clock.rfc3339()))
            self._endpoint = None
            self._attend()
        except Refused as error:
            self._keep(lifecycle.refused(self.record, str(error)))
        except (Unavailable, NoPort) as error:
            self._delay(str(error))
        except Unknown as error:
            await self._adopt()
            if self._process == "none":
                self._delay(str(error))

    def _delay(self, why: str) -> None:
        log.warning("instance %s cannot be started now: %s", self.record.id, why)
        self._keep(lifecycle.delayed(self.record, why, clock.monotonic(), random.random()))  # noqa: S311

    def _launch(self) -> Launch:
        record, wished = self.record, self.record.assignment
        store = self._around.store
        directory = store.directory(record.id)
        own = {
            **{f"OMNI_VOLUME_{v.name.upper().replace('-', '_')}": v.path for v in wished.volumes},
            "PORT": str(record.port),
            "OMNI_APP": wished.app,
            "OMNI_PROCESS_TYPE": wished.process_type,
            "OMNI_INSTANCE_ID": str(wished.id),
            "OMNI_RELEASE": wished.release.version,
        }
        return Launch(
            instance_id=wished.id,
            app_id=wished.app_id,
            command=wished.command,
            env={"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **wished.env, **own},
            directory=directory,
            tree=self._around.packages.path(wished.release.package),
            home=directory / "home",
            stdout=directory / NAMES[0],
            stderr=directory / NAMES[1],
            memory_bytes=wished.memory_mb * 1024 * 1024,
            cpu_weight=wished.cpu,
            cpu_limit=wished.cpu_limit,
            hostname=_hostname(wished),
            image=self._around.packages.image(wished.release) if wished.release.kind == "image" else "",
            volumes=tuple(Mounted(v.name, store.volume(v.key), v.path) for v in wished.volumes),
            may_move=not (wished.once or wished.singleton or wished.volumes or wished.restart_policy == "never"),
            stop_timeout_s=wished.stop_timeout_s,
        )

    async def _kill(self) -> None:
        try:
            await self.runtime.kill(self._handle())
        except Unknown as error:
            log.warning("instance %s: %s", self.record.id, error)
            await asyncio.sleep(_AFTER_FAULT_S)
            return
        if self._process == "running" and (await self.runtime.observe(self._handle())).state != "running":
            self._process = "ended"

    async def _record_end(self) -> None:
        """Learn how it ended, clear away what is left of its tree, write it down."""
        handle = self._handle()
        seen = await self.runtime.observe(handle)
        await self.runtime.kill(handle)
        await self._leave_companions()
        self._take_mark()
        self.tail.finish_line()
        lines = [] if self.record.leaving else self.tail.evidence(self.record.log_start)
        at = clock.rfc3339()
        exit_ = Exit(at=at, code=seen.code, signal=seen.signal, oom=seen.oom, lines=lines)
        self._process = "none"
        self._keep(lifecycle.ended(self.record, exit_, clock.monotonic(), random.random()))  # noqa: S311
        log.info("instance %s: %s", self.record.id, lifecycle.describe(exit_))

    async def _delete(self) -> None:
        handle = self.record.handle or await self.runtime.recover(self.record.id)
        if handle is not None:
            await self.runtime.remove(handle)
        self.tail.close()
        self._around.store.delete(self.record.id)
        self._around.deleted(self.record.id)

    def _attend(self) -> None:
        """Watch over a process that runs: its end, and its health."""
        self._process = "running"
        handle = self._handle()
        self._companions = [
            asyncio.create_task(self._watch(handle)),
            asyncio.create_task(self._check()),
        ]

    async def _watch(self, handle: dict[str, object]) -> None:
        while True:
            try:
                await self.runtime.wait(handle)
                if (await self.runtime.observe(handle)).state != "running":
                    break
            except (RuntimeFault, OSError) as error:
                log.warning("instance %s: cannot watch it: %s", self.record.id, error)
            await asyncio.sleep(1.0)
        self._process = "ended"
        self._wake.set()

    async def _check(self) -> None:
        known = self.record.observed
        was_good = known.status == "running"
        state = HealthState(health=known.health if was_good else "starting", ever=was_good)
        while self._runs():
            check = self.record.assignment.health_check
            answer = await self._ask(check)
            if not self._runs():
                return
            now, since_start = clock.monotonic(), self._since_start()
            state = step(state, check, answer.ok, since_start)
            said = answer.said
            if state.health == "unhealthy" and not answer.reached:
                said += await self._elsewhere()
            probe = Probe(clock.rfc3339(), answer.ok, said, answer.status, answer.snippet)
            if answer.ok or state.health != "starting" or since_start >= SILENT_S:
                try:
                    self._keep(lifecycle.probed(self.record, state, probe, now))
                except OSError as error:  # a full disk must not end the checks
                    log.warning("instance %s: %s", self.record.id, error)
            closed = not answer.reached and self._endpoint is not None
            await asyncio.sleep(pause(state, check, since_start, closed))

    async def _elsewhere(self) -> str:
        """Where it listens instead: the commonest reason for which nothing answers."""
        try:
            ports = await self.runtime.listening(self._handle())
        except (RuntimeFault, OSError):
            return ""
        if ports is None:
            return ""
        return f"; it listens on port {', '.join(map(str, ports))}" if ports else "; it listens on no port"

    async def _ask(self, check: HealthCheck) -> probes.Answer:
        if check.type == "process" and self._since_start() < min(PROCESS_SETTLES_S, check.start_period_s):
            return probes.Answer(False, "its process was only just started")
        try:
            host, port = await self._located()
        except (RuntimeFault, OSError) as error:
            return probes.Answer(False, str(error)[:300], reached=False)
        answer = await probes.ask(check, host, port, self._execute)
        if not answer.reached and clock.monotonic() - self._located_at >= LOCATED_S:
            self._endpoint = None  # it may have been moved: where it is now is asked before the next try
        return answer

    async def _located(self) -> tuple[str, int]:
        """Where it answers; the ingress hears of a place of its own with the first healthy report."""
        if self._endpoint is None:
            given = Endpoint(self._around.address, self.record.port or 0, routed=True)
            self._endpoint = await self.runtime.endpoint(self._handle()) or given
            self._located_at = clock.monotonic()
            if self._endpoint.routed:
                address = f"{self._endpoint.host}:{self._endpoint.port}"
                self._keep(lifecycle.located(self.record, address, self._endpoint.place))
        return self._endpoint.host, self._endpoint.port

    def _since_start(self) -> float:
        started = self.record.started
        return 0.0 if started is None else clock.monotonic() - started

    def _runs(self) -> bool:
        return self._process == "running"

    async def _execute(self, command: str, timeout_s: float) -> Executed:
        return await self.runtime.execute(self._launch(), self._handle(), command, timeout_s)

    async def _leave_companions(self) -> None:
        leaving, self._companions = self._companions, []
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    def _handle(self) -> dict[str, object]:
        if self.record.handle is None:
            raise RuntimeFault("no process to look after")
        return self.record.handle

    def _keep(self, record: Record) -> None:
        """The record becomes this: on disk first, then told."""
        if record == self.record:
            return
        told = self.record.observed.seq
        self._around.store.save(record)
        self.record = record
        if record.observed.seq != told:
            self._around.report(record.observed)


def _hostname(wished: Assignment) -> str:
    """`shop-0`, `shop-worker-0`: a label of at most 63 characters."""
    kind = "" if wished.process_type == "web" else f"-{wished.process_type.lower().replace('_', '-')}"
    return f"{wished.app}{kind}"[: 63 - len(str(wished.slot)) - 1] + f"-{wished.slot}"
