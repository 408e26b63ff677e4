"""`omni volumes …`: directories of an app that outlive its instances and releases, and snapshots of them."""

from __future__ import annotations

from typing import Any

import click

from cli.errors import CommandError
from cli.session import Command, Group, Session

ENDED = ("succeeded", "failed", "lost")
TIMEOUT_S = 7 * 86400.0  # the platform's own deadline is what counts


@click.group(cls=Group)
def volumes() -> None:
    """List, create, delete, snapshot and restore the volumes of apps."""


@volumes.command("list")
@click.argument("app")
@click.pass_obj
def list_volumes(session: Session, app: str) -> None:
    """List the volumes of APP."""
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "volumes"), 100))
    if session.out.answer({"items": items}):
        return
    rows = [(v["name"], v["path"], v["node"], v["size_bytes"]) for v in items]
    session.out.table(("VOLUME", "PATH", "NODE", "BYTES"), rows, "no volumes; omni volumes create APP NAME PATH")


@volumes.command(cls=Command)
@click.option("--node", help="On which node; default: where an instance would be placed.")
@click.argument("app")
@click.argument("name")
@click.argument("path")
@click.pass_obj
def create(session: Session, app: str, name: str, path: str, node: str | None) -> None:
    """Give APP a directory NAME that its instances find at PATH from their next start on; APP must be stopped."""
    from cli.api import app_path

    body = {"name": name, "path": path, **({"node": node} if node else {})}
    found = session.api.call("POST", app_path(app, "volumes"), body).body
    if not session.out.answer(found):
        session.out.say(f"volume {found['name']} at {found['path']}, on {found['node']}")


@volumes.command(cls=Command)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.argument("app")
@click.argument("name")
@click.pass_obj
def delete(session: Session, app: str, name: str, yes: bool) -> None:
    """Destroy the volume NAME of APP and its data; APP must be stopped."""
    from cli.api import app_path

    path = app_path(app, "volumes", name)
    if not yes:
        volume = session.api.get(path).body
        size = "an unknown number of" if volume["size_bytes"] is None else volume["size_bytes"]
        click.confirm(f"Destroy {name} of {app}, {size} bytes on {volume['node']}, for good?", abort=True, err=True)
    found = session.api.call("DELETE", path, query={"confirm": name}).body
    if not session.out.answer(found):
        session.out.say(f"volume {name} of {app} is destroyed")


@volumes.command(cls=Command)
@click.option(
    "--stopped", "consistency", flag_value="stopped", help="Only with the app stopped, and kept so meanwhile."
)
@click.option("--live", "consistency", flag_value="live", help="Let the app start, or run on, meanwhile.")
@click.option("--detach", "-d", is_flag=True, help="Return when it is accepted.")
@click.argument("app")
@click.argument("name")
@click.pass_obj
def snapshot(session: Session, app: str, name: str, consistency: str | None, detach: bool) -> None:
    """Keep what is in the volume NAME of APP now; of a running app, file by file (live)."""
    from cli.api import app_path

    body = {"consistency": consistency} if consistency else {}
    made = session.api.call("POST", app_path(app, "volumes", name, "snapshots"), body).body
    found = made if detach else _end(session, made, app_path(app, "snapshots", made["id"]), "snapshot")
    if session.out.answer(found):
        return
    if detach:
        session.out.say(f"snapshot {found['id']} ({found['consistency']}); omni volumes snapshots {app}")
        return
    left_out = f", {found['skipped']} left out" if found["skipped"] else ""
    session.out.say(
        f"snapshot {found['id']} of {name} ({found['consistency']}): {found['files']} files, "
        f"{found['content_bytes']} bytes{left_out}"
    )


@volumes.command("snapshots")
@click.argument("app")
@click.argument("name", required=False)
@click.pass_obj
def list_snapshots(session: Session, app: str, name: str | None) -> None:
    """List the snapshots of APP, or of its volume NAME, newest first."""
    from cli.api import app_path

    path = app_path(app, "volumes", name, "snapshots") if name else app_path(app, "snapshots")
    items = list(session.api.pages(path, 500))
    if session.out.answer({"items": items}):
        return
    rows = [(s["id"], s["volume"], s["status"], s["consistency"], s["content_bytes"], s["created_at"], s["detail"])
            for s in items]  # fmt: skip
    heads = ("SNAPSHOT", "VOLUME", "STATUS", "CONSISTENCY", "BYTES", "CREATED", "DETAIL")
    session.out.table(heads, rows, "no snapshots; omni volumes snapshot APP NAME")


@volumes.command("delete-snapshot", cls=Command)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.argument("app")
@click.argument("number", metavar="SNAPSHOT", type=int)
@click.pass_obj
def delete_snapshot(session: Session, app: str, number: int, yes: bool) -> None:
    """Destroy SNAPSHOT of APP."""
    from cli.api import app_path

    path = app_path(app, "snapshots", number)
    if not yes:
        found = session.api.get(path).body
        told = f"Destroy snapshot {number} of {found['volume']}, taken {found['created_at']}, for good?"
        click.confirm(told, abort=True, err=True)
    gone = session.api.call("DELETE", path, query={"confirm": str(number)}).body
    if not session.out.answer(gone):
        session.out.say(f"snapshot {number} of {app} is destroyed")


@volumes.command(cls=Command)
@click.option("--stop", is_flag=True, help="Stop the app first, if it runs; it stays stopped.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--detach", "-d", is_flag=True, help="Return when it is accepted.")
@click.argument("app")
@click.argument("name")
@click.argument("number", metavar="SNAPSHOT", type=int)
@click.pass_obj
def restore(session: Session, app: str, name: str, number: int, stop: bool, yes: bool, detach: bool) -> None:
    """Replace all that is in the volume NAME of APP by SNAPSHOT; nothing of APP may run."""
    from cli.api import app_path

    if not yes:
        source = session.api.get(app_path(app, "snapshots", number)).body
        told = f"Replace all that is in {name} of {app} by the snapshot of {source['created_at']}?"
        click.confirm(told, abort=True, err=True)
    path = app_path(app, "volumes", name, "restores")
    made = session.api.call("POST", path, {"snapshot": number, "stop": stop}, query={"confirm": name}).body
    found = made if detach else _end(session, made, f"{path}/{made['id']}", "restore")
    if session.out.answer(found):
        return
    if detach:
        session.out.say(f"restore {found['id']} of {name} is accepted")
    else:
        session.out.say(f"{name} of {app} is as in snapshot {number}; omni start {app}")


def _end(session: Session, made: dict[str, Any], path: str, noun: str) -> dict[str, Any]:
    found: dict[str, Any] = session.api.watch(path, lambda body: body["status"] in ENDED, TIMEOUT_S).body
    if found["status"] != "succeeded":
        raise CommandError(f"{noun} {made['id']} {found['status']}: {found['reason']}: {found['detail']}")
    return found
