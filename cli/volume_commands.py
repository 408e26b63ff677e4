"""`omni volumes …`: directories of an app that outlive its instances and releases."""

from __future__ import annotations

import click

from cli.session import Command, Group, Session


@click.group(cls=Group)
def volumes() -> None:
    """List, create and delete the volumes of apps."""


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
