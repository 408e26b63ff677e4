"""`omni exec`: a command in a running instance, at this terminal."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.errors import CommandError
from cli.session import Command, Session

LOST = 125  # nobody knows how it ended


@click.command("exec", cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--tty/--no-tty", "-t/-T", "tty", default=None, help="A terminal; default: when this is one.")
@click.option("--instance", "-i", "instance_id", type=click.IntRange(1), help="Its id; default: a healthy one of web.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), help="Seconds after which it is ended.")
@click.argument("app")
@click.argument("command", nargs=-1, required=True)
@click.pass_obj
def exec_(
    session: Session, /, app: str, command: tuple[str, ...], tty: bool | None, instance_id: int | None, **options: Any
) -> None:
    """Run COMMAND in a running instance of APP: omni exec shop -- sh. Its exit code is this command's."""
    from cli import talking
    from cli.api import app_path

    if len(command) > 1 and command[0].isdigit() and instance_id is None:
        instance_id, command = int(command[0]), command[1:]  # omni exec APP INSTANCE -- COMMAND
    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    terminal = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    if instance_id is None:
        instance_id = _running(session, app)
    columns, rows = talking.size()
    body = {"command": list(command), "tty": terminal, "columns": columns, "rows": rows}
    body |= {key: value for key, value in options.items() if value is not None}
    made = session.api.call("POST", app_path(app, "instances", instance_id, "exec"), body).body
    end = talking.talk(session.api.url, made["url"], terminal)
    if end.get("type") == "error":
        raise CommandError(str(end.get("detail") or end.get("code")))
    if end.get("reason") != "exited":
        detail = end.get("detail") or str(end.get("reason", "the connection was lost")).replace("_", " ")
        raise CommandError(f"the session ended: {detail}", exit_code=LOST)
    code = end.get("code")
    if code != 0:
        raise SystemExit(LOST if code is None else int(code))


def _running(session: Session, app: str) -> int:
    from cli.api import app_path

    items = session.api.get(app_path(app, "instances"), status="running", limit=100).body["items"]
    if not items:
        raise CommandError(f"no instance of {app} runs", next_step=f"omni ps {app}")
    best = min(items, key=lambda one: (one["health"] != "healthy", one.get("process_type", "web") != "web", one["id"]))
    return int(best["id"])
