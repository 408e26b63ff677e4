"""How an upload becomes a package: fetch, unpack, detect, build, package.

Owns the order of the steps and their record; each step is written down before it runs and after. Does not decide
what happens with the result, and must not be trusted with more than one attempt: the token it holds is its own.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from observing import tracing
from releases import image_archive
from releases.build_errors import BuildFailed, BuildStopped
from releases.build_sandbox import MIB, BuildSandbox, Room
from releases.builders import Plan, Source, detect
from releases.builders.base import HostTools
from releases.contract import IMAGE_REFERENCE, IMAGE_RUNTIMES, Claim, Package, StepName
from releases.image_build import ImageBuild, Made
from releases.lease import LeaseKeeper, Steps, Stop
from releases.log_stream import LogStream
from releases.registry_settings import RegistrySettings
from releases.worker_client import ControlPlane, Damaged, Refused
from sandbox.archive import BadArchive, Limits, pack, unpack
from sandbox.probe import Facts

_MOST_FILES = 200_000


@dataclass(slots=True)
class Work:
    """Everything one attempt needs and makes. Lives for one run only, because Celery re-uses its task objects."""

    claim: Claim
    plane: ControlPlane
    room: Room
    facts: Facts
    tools: HostTools
    registries: RegistrySettings
    keeper: LeaseKeeper
    steps: Steps
    stop: Stop
    log: LogStream
    began: float = field(default_factory=time.monotonic)
    tree: Path | None = None
    plan: Plan | None = None
    package: Package | None = None
    engine: str = ""
    image: str = ""

    @property
    def deadline(self) -> float:
        return self.began + self.claim.limits.wall_s


def run(work: Work) -> None:
    """The whole story; afterwards `work` holds plan and package. Raises BuildFailed or BuildStopped."""
    with _step(work, "fetch"):
        _fetch(work)
    if (kind := _image_kind(work)) is not None:
        _run_image(work, kind)
        return
    with _step(work, "unpack"):
        work.tree = _unpack(work)
    with _step(work, "detect"):
        work.plan = _detect(work, work.tree)
    with _step(work, "build"):
        if work.plan.image:
            made = _images(work).make("dockerfile", str(work.tree), f"omni-build:app-{work.claim.app_id}")
        else:
            _build(work, work.tree, work.plan)
    if work.plan.image:
        with _step(work, "package"):
            _keep_image(work, made)
        return
    with _step(work, "package"):
        work.package = _package(work, work.tree)


def _image_kind(work: Work) -> str | None:
    """Whether the upload is an image, and how; None for a folder."""
    if work.claim.artifact.media_type == IMAGE_REFERENCE:
        return "reference"
    is_one = work.claim.runtime in IMAGE_RUNTIMES and image_archive.is_image_archive(work.room.artifact)
    return "archive" if is_one else None


def _run_image(work: Work, kind: str) -> None:
    """There is nothing to unpack and nothing to detect."""
    work.plan = Plan("image", process_types={"web": ""}, image=True)
    work.keeper.builder = work.plan.builder
    source = str(work.room.artifact)
    if kind == "reference":
        source = json.loads(work.room.artifact.read_bytes())["image"]
        work.log.say(f"Pulling {source}")
    with _step(work, "build"):
        made = _images(work).make(kind, source, "")
    with _step(work, "package"):
        _keep_image(work, made)


def _images(work: Work) -> ImageBuild:
    return ImageBuild(
        engine=work.engine,
        room=work.room,
        limits=work.claim.limits,
        logins=work.claim.registries,
        stop=work.stop,
        sink=work.log.line,
        deadline=work.deadline,
    )


def _keep_image(work: Work, made: Made) -> None:
    work.image, work.package = made.reference, made.package
    work.log.say(f"Image {made.reference}, {made.package.size} bytes")
    _put(work, made.package)


@contextlib.contextmanager
def _step(work: Work, name: StepName) -> Iterator[None]:
    work.stop.check()
    if time.monotonic() > work.deadline:
        raise BuildFailed("build_timeout", f"The build took longer than {work.claim.limits.wall_s:g} s.")
    work.steps.started(name)
    work.keeper.tell()
    try:
        with tracing.span(f"build: {name}"):
            yield
    except BaseException as error:
        work.steps.ended("cancelled" if isinstance(error, BuildStopped) else "failed")
        raise
    work.steps.ended("succeeded")
    work.keeper.tell()


def _fetch(work: Work) -> None:
    artifact = work.claim.artifact
    work.log.say(f"Fetching the upload ({artifact.size} bytes, sha256 {artifact.sha256[:12]}…)")
    try:
        work.plane.fetch_artifact(
            artifact.sha256, artifact.size, work.room.artifact, work.keeper.left_s() + 60, work.stop.check
        )
    except Damaged as error:
        raise BuildFailed("artifact_damaged", f"The upload cannot be read back: {error}. Upload it again.") from error
    except Refused as error:
        raise BuildFailed(
            "artifact_missing", f"The upload is not to be had: {error.detail}. Upload it again."
        ) from error


def _unpack(work: Work) -> Path:
    owner = (work.room.uid, work.room.uid) if work.facts.user_switch else None
    try:
        done = unpack(work.room.artifact, work.room.unpacked, _limits(work), owner=owner, tick=work.stop.check)
    except BadArchive as error:
        where = f" Entry: {error.member}" if error.member else ""
        raise BuildFailed(error.code, f"The archive is refused: {error.detail}.{where}") from error
    work.log.say(f"Unpacked {done.files} files, {done.bytes} bytes")
    work.room.artifact.unlink()
    top = list(work.room.unpacked.iterdir())
    if len(top) == 1 and top[0].is_dir() and not top[0].is_symlink():
        work.log.say(f"Everything lies in {top[0].name}/: taking that as the top")
        return top[0]
    return work.room.unpacked


def _detect(work: Work, tree: Path) -> Plan:
    plan = detect(Source(tree, work.claim.runtime, work.tools))
    work.keeper.builder = plan.builder
    work.log.say(f"Detected: {plan.builder}")
    for name, command in plan.process_types.items():
        work.log.say(f"Process {name}: {command}")
    for note in plan.notes:
        work.log.say(note)
    return plan


def _build(work: Work, tree: Path, plan: Plan) -> None:
    if plan.commands:
        for note in (*work.facts.notes, *work.registries.notes):
            work.log.say(f"Note: {note}")
        with _sandbox(work, tree) as sandbox:
            for command in plan.commands:
                work.log.say(f"$ {command.title}")
                sandbox.run(command)
    # From here on nothing of the build runs any more; yet the tree is what its commands made of it.
    for name, content in plan.files.items():
        _add_file(tree, name, content)


def _sandbox(work: Work, tree: Path) -> BuildSandbox:
    claim = work.claim
    return BuildSandbox(
        room=work.room,
        tree=tree,
        facts=work.facts,
        tools=work.tools,
        registries=work.registries,
        limits=claim.limits,
        stop=work.stop,
        sink=work.log.line,
        deadline=work.deadline,
        extra_env={"OMNI_APP": claim.app, "OMNI_RELEASE": claim.version},
    )


def _add_file(tree: Path, name: str, content: bytes) -> None:
    path = tree / name
    try:
        path.parent.mkdir()
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise BuildFailed("reserved_name", f"{path.parent.name} is a name of the platform's; rename it.") from error
    path.chmod(0o644)


def _package(work: Work, tree: Path) -> Package:
    try:
        packed = pack(tree, work.room.package, _limits(work), tick=work.stop.check)
    except BadArchive as error:
        where = f" Entry: {error.member}" if error.member else ""
        raise BuildFailed(error.code, f"The built tree cannot be packed: {error.detail}.{where}") from error
    work.stop.check()
    package = Package(packed.sha256, packed.size)
    work.log.say(f"Packed {package.size} bytes, sha256 {package.sha256[:12]}…")
    _put(work, package)
    return package


def _put(work: Work, package: Package) -> None:
    claim = work.claim
    work.plane.put_package(
        claim.build_id, claim.token, package, work.room.package, work.keeper.left_s() + 60, work.stop.check
    )


def _limits(work: Work) -> Limits:
    limits = work.claim.limits
    return Limits(files=_MOST_FILES, bytes=limits.disk_mb * MIB, member_bytes=limits.file_mb * MIB)
