"""`omni cron …`: commands of an app that run by a schedule."""

from __future__ import annotations

import shlex
from typing import Any

import click

from cli.session import Command, Group, Session


@click.group(cls=Group)
def cron() -> None:
    """Run commands of an app by a schedule."""


@cron.command("list")
@click.argument("app")
@click.pass_obj
def list_entries(session: Session, app: str) -> None:
    """List the cron entries of APP."""
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "cron"), 500))
    if session.out.answer({"items": items}):
        return
    rows = [
        (e["name"], e["schedule"], e["time_zone"], "paused" if e["paused"] else e["next_due_at"], e["overlap"],
         e["command"] or e["process_type"])
        for e in items
    ]  # fmt: skip
    heads = ("NAME", "SCHEDULE", "TIME ZONE", "NEXT", "OVERLAP", "COMMAND")
    session.out.table(heads, rows, "no cron entries yet; omni cron add APP NAME SCHEDULE COMMAND")


@cron.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--time-zone", "-z", help="Such as Europe/Berlin; default: UTC.")
@click.option("--overlap", type=click.Choice(["skip", "allow", "replace"]), help="While the one before still runs.")
@click.option("--timeout", "timeout_s", type=float, help="Seconds after which a run is ended.")
@click.option("--start-deadline", "start_deadline_s", type=float, help="Seconds after which a due time is missed.")
@click.argument("app")
@click.argument("name")
@click.argument("schedule")
@click.argument("command", nargs=-1, required=True)
@click.pass_obj
def add(session: Session, /, app: str, name: str, schedule: str, command: tuple[str, ...], **options: Any) -> None:
    """Run COMMAND by SCHEDULE: omni cron add shop tidy '30 2 * * *' python tidy.py."""
    from cli.api import app_path

    line = command[0] if len(command) == 1 else shlex.join(command)
    body = {"name": name, "schedule": schedule, "command": line}
    body |= {key: value for key, value in options.items() if value is not None}
    found = session.api.call("POST", app_path(app, "cron"), body).body
    if not session.out.answer(found):
        session.out.say(f"{name} is due next at {found['next_due_at']}")


def _change(name: str, summary: str, paused: bool) -> click.Command:
    @click.command(name, cls=Command, help=summary)
    @click.argument("app")
    @click.argument("entry")
    @click.pass_obj
    def command(session: Session, app: str, entry: str) -> None:
        from cli.api import app_path

        found = session.api.call("PATCH", app_path(app, "cron", entry), {"paused": paused}).body
        if not session.out.answer(found):
            session.out.say(f"{entry} is {'paused' if paused else 'due next at ' + str(found['next_due_at'])}")

    return command


cron.add_command(_change("pause", "Start ENTRY no more until it is resumed.", True))
cron.add_command(_change("resume", "Go on with ENTRY; what was due meanwhile is not caught up on.", False))


@cron.command()
@click.argument("app")
@click.argument("entry")
@click.pass_obj
def run(session: Session, app: str, entry: str) -> None:
    """Run ENTRY now, beside its schedule."""
    from cli.api import app_path

    found = session.api.call("POST", app_path(app, "cron", entry, "run")).body
    if not session.out.answer(found):
        task = f", task {found['task_id']}" if found["task_id"] else ""
        session.out.say(f"{found['status']}{task}: {found['reason']}")


@cron.command()
@click.argument("app")
@click.argument("entry")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@click.pass_obj
def runs(session: Session, app: str, entry: str, limit: int) -> None:
    """Show what became of each due time of ENTRY, newest first."""
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "cron", entry, "runs"), limit))
    if session.out.answer({"items": items}):
        return
    rows = [(r["due_at"], r["status"], r["task_id"], r["task_status"], r["exit_code"], r["reason"]) for r in items]
    session.out.table(("DUE", "STATUS", "TASK", "TASK STATUS", "EXIT", "REASON"), rows, "nothing was due yet")


@cron.command()
@click.argument("app")
@click.argument("entry")
@click.pass_obj
def remove(session: Session, app: str, entry: str) -> None:
    """Remove ENTRY with its history."""
    from cli.api import app_path

    session.api.call("DELETE", app_path(app, "cron", entry))
    session.out.say(f"{entry} is removed")
