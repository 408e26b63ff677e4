"""`omni alerts …`, `omni silences …`: what is wrong, who looks after it, and what nobody is to be told of."""

from __future__ import annotations

import click

from cli.service_commands import from_now
from cli.session import Command, Group, Session


@click.group(cls=Group)
def alerts() -> None:
    """Show and acknowledge the alerts of services."""


@alerts.command("list")
@click.option("--status", default="active", show_default=True,
              type=click.Choice(["active", "open", "acknowledged", "resolved", "all"]))  # fmt: skip
@click.option("--service", help="Only alerts of this service.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@click.pass_obj
def list_alerts(session: Session, status: str, service: str | None, limit: int) -> None:
    """List alerts, newest first. What fails because of another service is counted there."""
    given = {name: value for name, value in (("status", status), ("service", service)) if value and value != "all"}
    items = list(session.api.pages("/alerts", limit, **given))
    if session.out.answer({"items": items}):
        return
    rows = [
        (a["id"], a["service"]["name"], a["severity"], "silenced" if a["silenced"] else a["status"], a["opened_at"],
         a["resolved_at"] or a["acknowledged_by"], len(a["affected"]) or None, a["detail"])
        for a in items
    ]  # fmt: skip
    heads = ("ALERT", "SERVICE", "SEVERITY", "STATUS", "OPENED", "RESOLVED, BY", "WITH IT", "WHY")
    session.out.table(heads, rows, "nothing is wrong" if status == "active" else "no alerts")


@alerts.command(cls=Command)
@click.option("--note", default="", help="For the others.")
@click.argument("alert", type=int)
@click.pass_obj
def ack(session: Session, alert: int, note: str) -> None:
    """Say that you look after ALERT (a number)."""
    found = session.api.call("POST", f"/alerts/{alert}/ack", {"note": note} if note else {}).body
    if not session.out.answer(found):
        session.out.say(f"alert {alert} of {found['service']['name']} is acknowledged by {found['acknowledged_by']}")


@click.group(cls=Group)
def silences() -> None:
    """Tell nobody of some alerts for a while; they are opened and shown all the same."""


@silences.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1))
@click.pass_obj
def list_silences(session: Session, limit: int) -> None:
    """List silences, newest first; those that ended too."""
    items = list(session.api.pages("/silences", limit))
    if session.out.answer({"items": items}):
        return
    rows = [(s["id"], s["pattern"], s["starts_at"], s["ends_at"], s["created_by"], s["reason"]) for s in items]
    session.out.table(("SILENCE", "SERVICES", "FROM", "UNTIL", "BY", "REASON"), rows, "nothing is silenced")


@silences.command(cls=Command)
@click.option("--for", "span", required=True, metavar="SPAN", help="Such as 90m, 2h, 1d.")
@click.option("--reason", required=True)
@click.argument("pattern")
@click.pass_obj
def add(session: Session, pattern: str, span: str, reason: str) -> None:
    """Silence services whose names match PATTERN: omni silences add --for 2h --reason "moving it" 'db-*'."""
    body = {"pattern": pattern, "reason": reason, "ends_at": from_now(span)}
    found = session.api.call("POST", "/silences", body).body
    if not session.out.answer(found):
        session.out.say(f"silence {found['id']}: {found['pattern']} until {found['ends_at']}")


@silences.command(cls=Command)
@click.argument("silence", type=int)
@click.pass_obj
def end(session: Session, silence: int) -> None:
    """End SILENCE (a number) at once."""
    found = session.api.call("DELETE", f"/silences/{silence}").body
    if not session.out.answer(found):
        session.out.say(f"silence {silence} is over; what is wrong at the moment is told")
