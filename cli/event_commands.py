"""`omni events`: what changed on the platform, why, and by whom; with `--follow` as it happens."""

from __future__ import annotations

import json
from typing import Any

import click

from cli.output import Output, clean
from cli.session import Command, Session


@click.command(cls=Command)
@click.option("--follow", "-f", is_flag=True, help="Go on as new events come.")
@click.option("--app", help="Only events of this app.")
@click.option("--kind", help="Only events of this kind, e.g. instance.crashed.")
@click.option("--since", type=click.IntRange(0), help="Everything after this write index, oldest first.")
@click.option(
    "--limit", "-n", default=50, show_default=True, type=click.IntRange(1), help="How many, without --follow."
)
@click.pass_obj
def events(session: Session, follow: bool, app: str | None, kind: str | None, since: int | None, limit: int) -> None:
    """Show the numbered events of the platform, or of one app."""
    from cli import follow as following

    given: dict[str, object] = {"app": app, "kind": kind, "since": since}
    given = {name: value for name, value in given.items() if value is not None}
    if follow:
        for event in following.lines(session.api, "/events", **given):
            if session.out.as_json:
                click.echo(json.dumps(event, ensure_ascii=False))
            else:
                show(session.out, event)
        return
    items = list(session.api.pages("/events", limit, **given))
    if session.out.answer({"items": items}):
        return
    for event in items if since is not None else reversed(items):
        show(session.out, event)


def show(out: Output, event: dict[str, Any]) -> None:
    """One line: when, its number, what, of what, by whom and why."""
    at = out.paint(str(event.get("at", ""))[11:23], "bright_black")
    of = event.get("object") or {}
    what = f"{event.get('kind')} {of.get('type')} {of.get('id')}"
    change = json.dumps(event["change"], ensure_ascii=False) if event.get("change") else ""
    why = f"{event.get('actor')}: {event.get('cause')}"
    out.say(f"{at} {event.get('id')} {clean(what)} {out.paint(clean(why), 'cyan')} {clean(change)[:300]}".rstrip())
