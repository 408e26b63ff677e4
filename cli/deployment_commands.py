"""`omni deployments …`: what changes of an app are under way or were, and what can be done with one by hand.

Owns how a deployment looks on a terminal; waiting for its end is follow's.
"""

from __future__ import annotations

from typing import Any

import click

from cli.errors import CommandError
from cli.release_commands import TIMEOUT_S, finish
from cli.session import Command, Group, Session

_HEADS = ("DEPLOYMENT", "KIND", "STATUS", "PHASE", "VERSION", "BEFORE", "INSTANCES", "CREATED", "REASON")
_KEYS = ("id", "kind", "status", "phase", "version", "previous_version", "instances", "created_at")


@click.group(cls=Group)
def deployments() -> None:
    """List and show the deployments of an app; pause, resume, promote and cancel one.

    Without DEPLOYMENT the newest of the app is meant.
    """


@deployments.command("list")
@click.argument("app")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1))
@click.pass_obj
def list_deployments(session: Session, app: str, limit: int) -> None:
    """List the deployments of APP, the newest first."""
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "deployments"), limit))
    if session.out.answer({"items": items}):
        return
    rows = [[*(one.get(key) for key in _KEYS), _why(one)] for one in items]
    session.out.table(_HEADS, rows, "no deployments yet")


@deployments.command()
@click.argument("app")
@click.argument("deployment", type=int, required=False)
@click.pass_obj
def show(session: Session, app: str, deployment: int | None) -> None:
    """Show a deployment of APP: how far it is, its steps, its requests, and the evidence if it failed."""
    from cli.api import app_path

    number = deployment if deployment is not None else _newest(session, app)
    found = session.api.get(app_path(app, "deployments", number)).body
    if session.out.answer(found):
        return
    ledger = found.get("ledger") or {}
    session.out.facts(
        [
            *((name, found.get(name)) for name in ("id", "kind", "status", "phase", "version")),
            ("before", found.get("previous_version")),
            ("instances", found.get("instances")),
            ("% to the new", found.get("percent_to_new")),
            ("requests", ledger.get("requests")),
            ("retried", ledger.get("retried")),
            ("failed", ledger.get("failed")),
            ("by", found.get("created_by")),
            ("created", found.get("created_at")),
            ("finished", found.get("finished_at")),
            ("why", _why(found)),
        ]
    )
    session.out.say("")
    rows = [[one.get(key) for key in ("at", "what", "instance_id", "reason")] for one in found.get("steps") or []]
    session.out.table(("AT", "STEP", "INSTANCE", "REASON"), rows, "no steps yet")
    _show_evidence(session, app, found.get("evidence") or {})


def _show_evidence(session: Session, app: str, evidence: dict[str, Any]) -> None:
    from cli.output import clean

    if not evidence:
        return
    end, probe = evidence.get("last_exit") or {}, evidence.get("last_probe") or {}
    ended = next((f"{how} {end[how]}" for how in ("code", "signal") if end.get(how) is not None), None)
    session.out.say("\nevidence")
    session.out.facts(
        [
            ("instance", f"{evidence.get('instance_id')} in slot {evidence.get('slot')} on {evidence.get('node')}"),
            ("what", evidence.get("detail")),
            ("last exit", f"{ended}, out of memory" if end.get("oom") else ended),
            ("last probe", probe.get("detail")),
            ("answered", probe.get("snippet")),
        ]
    )
    for line in evidence.get("log") or []:
        session.out.say(f"  {clean(str(line))}")
    session.out.say(f"more: omni logs {app} --instance {evidence.get('instance_id')}")


def _why(found: dict[str, Any]) -> str | None:
    return (found.get("error") or {}).get("detail") or found.get("reason") or None


def _newest(session: Session, app: str) -> int:
    from cli.api import app_path

    items = list(session.api.pages(app_path(app, "deployments"), 1))
    if not items:
        raise CommandError(f"{app} has no deployments", next_step="omni up DIR")
    return int(items[0]["id"])


def _verb(name: str, summary: str, accepted: str, *, ends: bool) -> None:
    """`ends`: the deployment goes on to an end that can be waited for."""

    def act(session: Session, app: str, deployment: int | None, wait: bool = False, timeout: float = TIMEOUT_S) -> None:
        from cli.api import app_path

        number = deployment if deployment is not None else _newest(session, app)
        body = session.api.call("POST", app_path(app, "deployments", number, name)).body
        if wait:
            finish(session, app, body, wait=True, timeout=timeout, done=f"deployment {number} of {app} is done")
        elif not session.out.answer(body):
            session.out.say(f"deployment {number} of {app} {accepted}; see omni deployments show {app} {number}")

    wrapped: Any = click.pass_obj(act)
    if ends:
        wrapped = click.option("--timeout", default=TIMEOUT_S, show_default=True)(wrapped)
        wrapped = click.option("--wait", is_flag=True, help="Wait for its end.")(wrapped)
    wrapped = click.argument("deployment", type=int, required=False)(wrapped)
    deployments.command(name, cls=Command, help=summary)(click.argument("app")(wrapped))


_verb("pause", "Hold a deployment of APP where it is.", "is paused", ends=False)
_verb("resume", "Let a paused deployment of APP go on.", "goes on", ends=True)
_verb("promote", "End a deployment's trial: the new release of APP takes over.", "is promoted", ends=True)
_verb("cancel", "Cancel a deployment of APP: what ran before comes back.", "is cancelled", ends=False)
