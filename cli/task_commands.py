"""`omni run`, `omni tasks …`: commands that run once beside an app's instances."""

from __future__ import annotations

import shlex
from typing import Any

import click

from cli.errors import USAGE, CommandError
from cli.session import Command, Group, Session

ENDED = ("succeeded", "failed", "cancelled", "timed_out", "lost")
TIMEOUT_S = 7 * 86400.0


@click.command("run", cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--detach", "-d", is_flag=True, help="Return when it is accepted.")
@click.option("--env", "-e", "pairs", multiple=True, metavar="KEY=VALUE", help="A variable of its own.")
@click.option("--memory", "memory_mb", type=click.IntRange(4), help="Memory in MB; default: as web has.")
@click.option("--timeout", "timeout_s", type=float, help="Seconds after which it is ended.")
@click.option("--version", help="Of which release; default: the one that is deployed.")
@click.argument("app")
@click.argument("command", nargs=-1, required=True)
@click.pass_obj
def run(
    session: Session, /, app: str, command: tuple[str, ...], detach: bool, pairs: tuple[str, ...], **options: Any
) -> None:
    """Run COMMAND once in APP's release, and show what it writes: omni run shop python manage.py check."""
    from cli import follow
    from cli.api import app_path

    line = command[0] if len(command) == 1 else shlex.join(command)
    body = {"command": line, **{key: value for key, value in options.items() if value is not None}}
    if pairs:
        body["env"] = dict(_pair(pair) for pair in pairs)
    task = session.api.call("POST", app_path(app, "run"), body).body
    if detach:
        if not session.out.answer(task):
            session.out.say(f"task {task['id']}; its log: omni tasks log {app} {task['id']} --follow")
        return
    path = app_path(app, "tasks", task["id"])
    if not session.out.as_json:
        for found in follow.lines(session.api, f"{path}/logs", tail=500):
            follow.show_line(session.out, found, with_instance=False)
    task = session.api.watch(path, lambda body: body["status"] in ENDED, TIMEOUT_S).body
    session.out.answer(task)
    if task["status"] != "succeeded":
        raise CommandError(
            f"task {task['id']} {task['status'].replace('_', ' ')}: {task['reason']}",
            next_step=f"omni tasks show {app} {task['id']}",
        )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(f"{text!r} is not KEY=VALUE", exit_code=USAGE)
    return name, value


@click.group(cls=Group)
def tasks() -> None:
    """Show and cancel what omni run, releases and cron entries ran."""


@tasks.command("list")
@click.argument("app")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@click.option("--kind", type=click.Choice(["run", "release", "cron"]))
@click.option("--status", help="Only these, comma-separated.")
@click.pass_obj
def list_tasks(session: Session, app: str, limit: int, kind: str | None, status: str | None) -> None:
    """List the tasks of APP, newest first."""
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "tasks"), limit, kind=kind, status=status))
    if session.out.answer({"items": items}):
        return
    rows = [(t["id"], t["kind"], t["status"], t["exit_code"], t["version"], t["created_at"], t["command"][:60])
            for t in items]  # fmt: skip
    heads = ("TASK", "KIND", "STATUS", "EXIT", "VERSION", "CREATED", "COMMAND")
    session.out.table(heads, rows, "no tasks yet; omni run APP COMMAND")


@tasks.command()
@click.argument("app")
@click.argument("task", type=int)
@click.pass_obj
def show(session: Session, app: str, task: int) -> None:
    """Show everything about TASK."""
    from cli.api import app_path

    found = session.api.get(app_path(app, "tasks", task)).body
    if session.out.answer(found):
        return
    names = ("id", "kind", "status", "reason", "exit_code", "command", "version", "node", "created_by", "created_at",
             "started_at", "finished_at")  # fmt: skip
    session.out.facts([(name, found[name]) for name in names])


@tasks.command()
@click.argument("app")
@click.argument("task", type=int)
@click.option("--follow", "-f", is_flag=True, help="Go on until it has ended.")
@click.pass_obj
def log(session: Session, app: str, task: int, follow: bool) -> None:
    """Show what TASK wrote."""
    from cli import follow as following
    from cli.api import app_path

    path = app_path(app, "tasks", task, "logs")
    found = following.lines(session.api, path, tail=500) if follow else session.api.pages(path, 100_000)
    for line in found:
        following.show_line(session.out, line, with_instance=False)


@tasks.command()
@click.argument("app")
@click.argument("task", type=int)
@click.pass_obj
def cancel(session: Session, app: str, task: int) -> None:
    """End TASK: SIGTERM, then SIGKILL."""
    from cli.api import app_path

    found = session.api.call("POST", app_path(app, "tasks", task, "cancel")).body
    if not session.out.answer(found):
        session.out.say(f"task {task} is being ended")
