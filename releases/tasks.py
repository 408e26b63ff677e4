"""The build worker: the Celery task, and what a worker process does when it starts and stops.

The task body is a story: claim, run the pipeline under a lease, finish. It gets an id and nothing else, holds no
database and no secret but its worker token, and must not import a model. Repeating a task is harmless: the second
finds nothing to claim.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from celery import shared_task, signals
from celery.exceptions import SoftTimeLimitExceeded

from observing import tracing
from omni.kernel import config as configuration
from omni.kernel.context import on_behalf_of
from releases import engine_door, pipeline, worker_given, worker_sweep
from releases.build_errors import BuildFailed, BuildStopped
from releases.build_sandbox import Room, host_facts, uid_of
from releases.builders.base import HostTools
from releases.contract import DETAIL_CHARS, Claim, Failure, Outcome
from releases.lease import LeaseKeeper, Steps, Stop
from releases.log_stream import LogStream
from releases.registry_settings import RegistrySettings
from releases.registry_settings import read as read_registries
from releases.worker_client import (
    ControlPlane,
    NotClaimable,
    Refused,
    Unreachable,
    WorkerClientError,
    tls_context,
)
from sandbox import identity, network

log = logging.getLogger(__name__)
_CLAIM_WITHIN_S = 15.0
_FINISH_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What this worker was told, once a process."""

    name: str
    token: str
    members: tuple[str, ...]
    directory: Path
    heartbeat_s: float
    uid_base: int
    bwrap: str
    tls: str = ""
    engine: str = ""

    def control_plane(self, timeout_s: float = 10.0) -> ControlPlane:
        """A client of its own, for one thread."""
        return ControlPlane(self.members, self.token, timeout_s, tls=tls_context(self.tls))

    @property
    def rooms(self) -> Path:
        return self.directory / "builds"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"


@cache
def worker_settings() -> WorkerSettings:
    """From the environment that omni.launch gives a worker, and the configuration."""
    config = configuration.load_or_exit()
    members = [url for url in os.environ.get("OMNI_CONTROL_PLANE", "").split(",") if url]
    return WorkerSettings(
        name=os.environ.get("OMNI_WORKER", "builder"),
        token=os.environ.get("OMNI_WORKER_TOKEN", ""),
        members=tuple(members or [member.url for member in config.members]),
        directory=Path(os.environ.get("OMNI_WORKER_DIR") or config.state / "worker"),
        heartbeat_s=config.timings.build_heartbeat_s,
        uid_base=config.agent.uid_base,
        bwrap=config.binaries.bwrap,
        tls=os.environ.get("OMNI_WORKER_TLS", ""),
        engine=os.environ.get(engine_door.VARIABLE, ""),
    )


@cache
def registries() -> RegistrySettings:
    told = worker_given.given()
    return told.registries if told else read_registries()


@shared_task(name="releases.tasks.build", acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def build(build_id: int) -> None:
    """Build `build_id`, if it still is to be built and nobody else does."""
    settings = worker_settings()
    with settings.control_plane() as plane:
        try:
            claim = plane.claim(build_id, settings.name, _CLAIM_WITHIN_S)
        except NotClaimable as error:
            log.info("build %s: %s", build_id, error.detail)
            return
        except (WorkerClientError, ValueError) as error:
            log.warning("build %s was not claimed, the relay will ring again: %s", build_id, error)
            return
        with on_behalf_of(claim.request_id), _traced(claim):
            log.info("build %s of %s %s: attempt %s", claim.build_id, claim.app, claim.version, claim.attempt)
            outcome = attempt(plane, claim, settings)
            log.info("build %s: %s", claim.build_id, outcome.outcome if outcome else "the lease was lost")


def _traced(claim: Claim) -> AbstractContextManager[object]:
    return tracing.span("build", kind="consumer", build=claim.build_id, app=claim.app, version=claim.version,
                        attempt=claim.attempt)  # fmt: skip


def attempt(plane: ControlPlane, claim: Claim, settings: WorkerSettings) -> Outcome | None:
    """One attempt from claim to finish. None: the lease was lost, and everything was discarded."""
    steps, stop = Steps(), Stop()
    room = _room(claim, settings)
    with (
        settings.control_plane(max(2.0, settings.heartbeat_s)) as heart,
        settings.control_plane() as scribe,
        LeaseKeeper(heart, claim, steps, stop, settings.heartbeat_s) as keeper,
    ):
        for client in (plane, heart, scribe):
            client.on_behalf_of(claim.request_id)
        try:
            with LogStream(
                lambda first, lines: scribe.logs(claim.build_id, claim.token, first, lines, max(1.0, keeper.left_s()))
            ) as stream:
                outcome = _run(plane, claim, settings, room, keeper, steps, stop, stream)
            if outcome is not None:
                _finish(plane, claim, outcome, keeper)
            return outcome
        finally:
            room.remove()


def _run(
    plane: ControlPlane,
    claim: Claim,
    settings: WorkerSettings,
    room: Room,
    keeper: LeaseKeeper,
    steps: Steps,
    stop: Stop,
    stream: LogStream,
) -> Outcome | None:
    """The pipeline, and who is to blame when it does not succeed."""
    facts = host_facts(settings.bwrap)
    tools = HostTools.found(relocate=facts.isolation == "none")
    work = pipeline.Work(claim, plane, room, facts, tools, registries(), keeper, steps, stop, stream)
    work.engine = settings.engine
    try:
        room.make(owned=facts.user_switch)
        pipeline.run(work)
    except BuildStopped as stopped:
        if stopped.reason == "lease_lost":
            log.warning("build %s attempt %s: lease lost, discarding it", claim.build_id, claim.attempt)
            return None
        stream.say("Cancelled")
        return Outcome("cancelled", keeper.builder, steps=steps.all())
    except BuildFailed as failed:
        return _failed(keeper, steps, stream, Failure(failed.code, failed.detail[:DETAIL_CHARS]))
    except SoftTimeLimitExceeded:
        return _failed(keeper, steps, stream, Failure("build_timeout", "The build took too long."))
    except Unreachable as error:
        log.warning("build %s: %s; its lease will run out and it is built again", claim.build_id, error)
        return None
    except Exception as error:
        log.exception("build %s attempt %s", claim.build_id, claim.attempt)
        detail = f"The platform failed, not the upload: {type(error).__name__}. Try again; the worker's log says more."
        return _failed(keeper, steps, stream, Failure("internal_error", detail))
    if work.plan is None or work.package is None:
        raise AssertionError("a pipeline that ended well has a plan and a package")
    stream.say("Built")
    types = work.plan.process_types
    return Outcome("succeeded", work.plan.builder, work.package, types, steps=steps.all(), image=work.image)


def _failed(keeper: LeaseKeeper, steps: Steps, stream: LogStream, failure: Failure) -> Outcome:
    stream.say(f"Failed: {failure.detail} [{failure.code}]")
    return Outcome("failed", keeper.builder, error=failure, steps=steps.all())


def _finish(plane: ControlPlane, claim: Claim, outcome: Outcome, keeper: LeaseKeeper) -> None:
    try:
        plane.finish(claim.build_id, claim.token, outcome, max(_FINISH_WITHIN_S, keeper.left_s()))
    except Refused as error:
        log.warning("build %s attempt %s: finish was refused: %s", claim.build_id, claim.attempt, error)
        if error.code != "lease_lost" and outcome.outcome == "succeeded":
            failure = Failure("internal_error", f"The result was refused: {error.detail}"[:DETAIL_CHARS])
            _finish(plane, claim, replace(outcome, outcome="failed", package=None, error=failure), keeper)
    except WorkerClientError as error:
        log.warning("build %s attempt %s: nobody took the result: %s", claim.build_id, claim.attempt, error)


def _room(claim: Claim, settings: WorkerSettings) -> Room:
    facts = host_facts(settings.bwrap)
    tag = worker_sweep.tag_of(settings.directory)
    root = settings.rooms / f"{claim.build_id}-{claim.attempt}"
    if facts.isolation == "none" and facts.user_switch:
        # Without a sandbox the build's own user must reach the tree by its path; our state is closed to it.
        root = Path(tempfile.gettempdir()) / f"omni-build-{tag}-{claim.build_id}-{claim.attempt}"
    cache = settings.cache / f"app-{claim.app_id}"
    group = f"build-{tag}-{claim.build_id}-{claim.attempt}"
    groups = worker_sweep.groups_of(settings.directory)
    return Room(root, cache, uid_of(claim.app_id, facts, settings.uid_base), group, groups)


def _open_worker(**_: Any) -> None:
    """Once, before the pool forks: leftovers of a killed worker go, loopback closes for build users."""
    settings = worker_settings()
    if not settings.token:
        sys.exit("OMNI_WORKER_TOKEN is not set: start.sh gives it to the worker")
    settings.rooms.mkdir(parents=True, exist_ok=True)
    worker_sweep.sweep(settings.directory)
    facts = host_facts(settings.bwrap)
    for note in facts.notes:
        log.warning("builds: %s", note)
    if worker_given.given() is None and facts.network == "filtered" and facts.user_switch:
        allowed = [(port, port) for port in registries().loopback_ports]
        network.install(
            worker_sweep.table_of(settings.directory),
            [network.Rule(identity.uid_range("build", settings.uid_base), allowed)],
        )


def _close_worker(**_: Any) -> None:
    if worker_given.given() is not None:
        return  # whoever started us filters the network, and sweeps after us
    try:
        network.remove(worker_sweep.table_of(worker_settings().directory))
    except network.Unavailable:
        return


def _open_child(**_: Any) -> None:
    tracing.configure("worker", worker_settings().name)  # in the child: the exporter's thread does not survive a fork


def _close_child(**_: Any) -> None:
    tracing.close()


signals.worker_init.connect(_open_worker)
signals.worker_process_init.connect(_open_child)
signals.worker_process_shutdown.connect(_close_child)
signals.worker_shutdown.connect(_close_worker)
