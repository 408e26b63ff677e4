"""`omni up`, `deploy`, `rollback`, `builds`: from a folder to a running release.

Owns the order of the calls; how each looks on the terminal is output's, how waiting works is follow's.
"""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.errors import USAGE, CommandError, ProblemError
from cli.session import Command, Session

if TYPE_CHECKING:
    from cli.packing import Packed

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
TIMEOUT_S = 300.0
OVERRIDE = click.option("--override-freeze", is_flag=True, help="Although the app is frozen; it goes on record.")


@click.command(cls=Command)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--app", "-a", help="The app's name or id; default: the folder's name.")
@click.option("--version", help="The release's version; default: the time and the content's digest.")
@click.option("--instances", "-n", type=click.IntRange(0), help="How many instances a new app gets.")
@click.option("--memory", "memory_mb", type=click.IntRange(16), help="Memory per instance of a new app, in MB.")
@click.option("--deploy/--no-deploy", default=True, help="Deploy when built.")
@click.option("--detach", "-d", is_flag=True, help="Return when uploaded.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True, help="Seconds to wait for the deployment.")
@click.pass_obj
def up(
    session: Session,
    directory: Path,
    app: str | None,
    version: str | None,
    instances: int | None,
    memory_mb: int | None,
    deploy: bool,
    detach: bool,
    timeout: float,
) -> None:
    """Upload DIRECTORY, build it, deploy it, and print its address."""
    from cli import follow, packing

    name = app or _name_of(directory.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        packed = packing.pack(directory, Path(scratch) / "upload.tar.gz")
        created = _ensure_app(session, name, instances, memory_mb)
        version = version or f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{packed.sha256[:7]}"
        build = _upload(session, name, version, packed, deploy)
    if not session.out.as_json:
        session.out.say(f"{'created ' if created else ''}{name}: version {version}, build {build['id']}")
    if detach:
        session.out.answer(build)
        return
    build = follow.build(session.api, session.out, name, int(build["id"]))
    if not deploy:
        if not session.out.answer(build):
            session.out.say(f"built; deploy it with: omni deploy {name} {version}")
        return
    found = follow.deployment_of_release(session.api, name, int(build["release_id"]), version, timeout)
    if found is not None:
        follow.deployment(session.api, session.out, name, found, timeout)
    from cli.api import app_path

    info = session.api.get(app_path(name, "info")).body
    if not session.out.answer(info):
        session.out.say(f"{name} {version} is up: {' '.join(info.get('urls') or [])}")
        for process, one in sorted((info.get("processes") or {}).items()):
            if one["instances"] == 0:
                session.out.say(f"{process} has no instances yet: omni scale {name} {process}=1")


def _name_of(directory: Path) -> str:
    """A name for the app from the folder's."""
    name = re.sub(r"[^a-z0-9]+", "-", directory.name.lower()).strip("-").lstrip("0123456789-")[:63].rstrip("-")
    if not NAME.fullmatch(name):
        raise CommandError(
            f"no app name can be made of {directory.name!r}", next_step="omni up --app NAME", exit_code=USAGE
        )
    return name


def _ensure_app(session: Session, name: str, instances: int | None, memory_mb: int | None) -> bool:
    """Create the app unless it exists; True when it was created."""
    from cli.api import app_path

    try:
        session.api.get(app_path(name, "info"))
        return False
    except ProblemError as problem:
        if problem.status != 404 or name.isdigit():
            raise
    wanted = {"name": name, "instances": instances, "memory_mb": memory_mb}
    session.api.call("POST", "/app/create", {key: value for key, value in wanted.items() if value is not None})
    return True


def _upload(session: Session, name: str, version: str, packed: Packed, deploy: bool) -> dict[str, Any]:
    import base64

    from cli.api import app_path

    digest = base64.b64encode(bytes.fromhex(packed.sha256)).decode()
    with session.out.upload(packed.size) as progress:
        answer = session.api.call(
            "POST",
            app_path(name, "release", version, "upload"),
            query={"deploy": "true" if deploy else "false"},
            upload=packed.path,
            headers={"Content-Type": "application/gzip", "Content-Digest": f"sha-256=:{digest}:"},
            progress=progress,
        )
    found: dict[str, Any] = answer.body
    return found


@click.command(cls=Command)
@click.argument("app")
@click.argument("version")
@click.option("--wait/--no-wait", default=True, help="Wait until it runs.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@OVERRIDE
@click.pass_obj
def deploy(
    session: Session, app: str, version: str, wait: bool, timeout: float, dry_run: bool, override_freeze: bool
) -> None:
    """Deploy a built VERSION of APP with its present configuration."""
    from cli.api import app_path

    query: dict[str, object] = {
        name: "true" for name, given in (("dry_run", dry_run), ("override_freeze", override_freeze)) if given
    }
    body = session.api.call("POST", app_path(app, "release", version, "deploy"), query=query).body
    finish(session, app, body, wait=wait and not dry_run, timeout=timeout, done=f"{app} runs {version}")


@click.command(cls=Command)
@click.argument("app")
@click.option("--to", "version", help="The version to return to; default: the one before.")
@click.option("--release", type=int, help="The number of the release to return to.")
@click.option("--wait/--no-wait", default=True, help="Wait until it runs.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True)
@OVERRIDE
@click.pass_obj
def rollback(
    session: Session, app: str, version: str | None, release: int | None, wait: bool, timeout: float,
    override_freeze: bool,
) -> None:  # fmt: skip
    """Return APP to an earlier release, code and configuration."""
    from cli.api import app_path

    if version and release is not None:
        raise CommandError("--to and --release exclude each other", exit_code=USAGE)
    wanted: dict[str, object] = {"version": version} if version else {"release": release} if release is not None else {}
    query: dict[str, object] = {"override_freeze": "true"} if override_freeze else {}
    body = session.api.call("POST", app_path(app, "rollback"), wanted, query=query).body
    finish(session, app, body, wait=wait, timeout=timeout, done=f"{app} is back")


def finish(session: Session, app: str, body: Any, *, wait: bool, timeout: float, done: str) -> None:
    """Wait for what `body` (a 202) has begun, if asked to, and say how it ended."""
    from cli import follow

    if wait:
        body = follow.after(session.api, session.out, app, body, timeout)
    if session.out.answer(body):
        return
    verb = follow.DEPLOYMENT_WAITS.get(body.get("phase")) if wait else None
    if verb is not None:
        done = f"deployment {body['id']} waits for: omni deployments {verb} {app} {body['id']}"
    session.out.say(done if wait else "accepted; see omni apps info " + app)


@click.command(cls=Command)
@click.argument("app")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@click.option("--log", "build_id", type=int, help="Show this build's log.")
@click.option("--follow", "-f", is_flag=True, help="With --log: go on until the build has ended.")
@click.pass_obj
def builds(session: Session, app: str, limit: int, build_id: int | None, follow: bool) -> None:
    """List the builds of APP, or show the log of one."""
    from cli import follow as following
    from cli.api import app_path

    if build_id is not None:
        path = app_path(app, "builds", build_id, "logs")
        found = following.lines(session.api, path, tail=500) if follow else session.api.pages(path, 100_000)
        for line in found:
            following.show_line(session.out, line, with_instance=False)
        return
    items = list(session.api.pages(app_path(app, "builds"), limit))
    if session.out.answer({"items": items}):
        return
    rows = [
        (
            b["id"],
            b["version"],
            b["status"],
            b.get("builder"),
            b.get("created_at"),
            (b.get("error") or {}).get("detail"),
        )
        for b in items
    ]
    session.out.table(("BUILD", "VERSION", "STATUS", "BUILDER", "CREATED", "ERROR"), rows, "no builds yet")
