"""`omni services …`: internal services that the platform watches: what they are, how they are, what was checked."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click

from cli.errors import USAGE, CommandError
from cli.session import Group, Session

_STATES = ("healthy", "degraded", "unhealthy", "unknown", "maintenance")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def service_path(*parts: str) -> str:
    return "/services/" + "/".join(quote(part, safe="") for part in parts)


def from_now(text: str) -> str:
    """`90m`, `2h`, `1d` from now on, as RFC 3339. Raises CommandError."""
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _UNITS:
        raise CommandError(f"{text!r} is no span such as 90m, 2h or 1d", exit_code=USAGE)
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=int(number) * _UNITS[unit])
    return ends.strftime("%Y-%m-%dT%H:%M:%SZ")


@click.group(cls=Group)
def services() -> None:
    """Watch internal services: databases, gateways, certificates, nightly jobs."""


@services.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those.")
@click.option("--match", "-q", "text", help="Only names that hold this.")
@click.option("--own", is_flag=True, help="Without the platform's own parts.")
@click.option("--limit", default=500, show_default=True, type=click.IntRange(1))
@click.pass_obj
def list_services(session: Session, state: str | None, text: str | None, own: bool, limit: int) -> None:
    """List what is watched, and how it is."""
    given = {name: value for name, value in (("state", state), ("q", text)) if value}
    items = list(session.api.pages("/services", limit, **given))
    if own:
        items = [item for item in items if item.get("source") != "platform"]
    if session.out.answer({"items": items}):
        return
    rows = [
        (one["name"], _state(session, one), one["state_since"], one.get("severity"), one.get("owner"), one["detail"])
        for one in items
    ]
    heads = ("SERVICE", "STATE", "SINCE", "SEVERITY", "OWNER", "WHY")
    session.out.table(heads, rows, "nothing is watched; omni services add NAME CHECK")


def _state(session: Session, one: dict[str, Any]) -> str:
    return "flapping" if one.get("flapping") else str(one["state"])


@services.command()
@click.argument("name")
@click.pass_obj
def show(session: Session, name: str) -> None:
    """Show everything about the service NAME, and what each vantage point says."""
    found = session.api.get(service_path(name)).body
    if session.out.answer(found):
        return
    check = found.get("check") or {}
    told = " ".join(f"{key}={value}" for key, value in check.items() if value not in ("", None))
    remedy = found.get("remedy")
    session.out.facts(
        [
            ("name", found["name"]), ("state", _state(session, found)), ("since", found["state_since"]),
            ("why", found["detail"]), ("alert", found.get("alert")), ("check", told),
            ("every", f"{found.get('interval_s')} s, waits {found.get('timeout_s')} s"),
            ("severity", found.get("severity")), ("owner", found.get("owner")), ("source", found.get("source")),
            ("needs", " ".join(found.get("depends_on") or ())),
            ("remedy", " ".join(f"{key}={value}" for key, value in remedy.items()) if remedy else None),
            ("maintenance", found.get("maintenance_until") or found.get("maintenance")),
        ]
    )  # fmt: skip
    if found.get("vantage"):
        session.out.say("")
        rows = [(v["node"], v["outcome"], v["latency_ms"], v["until"], v["detail"]) for v in found["vantage"]]
        session.out.table(("VANTAGE POINT", "SAYS", "MS", "AT", "DETAIL"), rows)


def _definition(command: Callable[..., None]) -> Callable[..., None]:
    """The options that `add` and `edit` share."""
    for option in reversed(
        (
            click.option("--description"),
            click.option("--owner", help="For people."),
            click.option("--severity", type=click.Choice(["info", "warning", "critical"])),
            click.option("--interval", "interval_s", type=float, help="Seconds between two checks; default: 10."),
            click.option("--timeout", "timeout_s", type=float, help="Seconds to wait for an answer; default: 3."),
            click.option("--healthy", "healthy_threshold", type=int, help="Good checks in a row until healthy."),
            click.option("--unhealthy", "unhealthy_threshold", type=int, help="Failed ones until unhealthy."),
            click.option(
                "--start-period", "start_period_s", type=float, help="Seconds in which failures do not count."
            ),
            click.option("--vantage-points", type=int, help="Looked at from so many nodes; default: all."),
            click.option("--needs", "depends_on", multiple=True, metavar="SERVICE", help="It cannot do without that."),
            click.option("--restart-app", metavar="APP", help="Remedy: restart that app."),
            click.option("--run-task", nargs=2, metavar="APP COMMAND", help="Remedy: run that in the app."),
            click.option("--call", "call_url", metavar="URL", help="Remedy: call that."),
            click.option("--secret-from", metavar="FILE", help="Secret that signs the call; - is standard input."),
            click.option("--after", "after_s", type=float, help="Remedy after so many seconds."),
            click.option("--backoff", "backoff_s", type=float, help="Again after so many, doubled each time."),
            click.option("--max-per-hour", type=int, help="At most so many remedies an hour."),
        )
    ):
        command = option(command)
    return command


_CHECKS = """CHECK is one of

    \b
    http://HOST/PATH      an answer from 200 to 399 (also https)
    tcp://HOST:PORT       it accepts a connection
    tls://HOST:PORT       its certificate is trusted and good for a while
    heartbeat             the service calls POST /services/NAME/heartbeat itself
    exec COMMAND…         on the nodes, as nobody; exit code 0 is good
"""


@services.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    help=f"Watch NAME: omni services add --severity critical db tcp://10.0.0.5:3306\n\n{_CHECKS}",
)
@_definition
@click.option("--contains", help="http: text that the body must hold.")
@click.option("--warn-days", type=float, help="tls: degraded below so many.")
@click.option("--fail-days", type=float, help="tls: failing below so many.")
@click.option("--no-verify", is_flag=True, help="tls: only its date counts.")
@click.argument("name")
@click.argument("check", nargs=-1, required=True)
@click.pass_obj
def add(session: Session, /, name: str, check: tuple[str, ...], **options: Any) -> None:
    body = {"name": name, "check": _check(check, options), **_fields(options)}
    found = session.api.call("POST", "/services", body).body
    if not session.out.answer(found):
        session.out.say(f"{found['name']} is watched; omni services show {found['name']}")


@services.command(help=f"Change the service NAME; what is not given stays as it is.\n\n{_CHECKS}")
@_definition
@click.option("--check", "check_words", metavar="CHECK", help="Another check.")
@click.option("--contains", help="http: text that the body must hold.")
@click.option("--warn-days", type=float, help="tls: degraded below so many.")
@click.option("--fail-days", type=float, help="tls: failing below so many.")
@click.option("--no-verify", is_flag=True, help="tls: only its date counts.")
@click.option("--no-needs", is_flag=True, help="It needs no other service.")
@click.option("--no-remedy", is_flag=True, help="Nothing is done when it is unhealthy.")
@click.argument("name")
@click.pass_obj
def edit(
    session: Session, /, name: str, check_words: str | None, no_needs: bool, no_remedy: bool, **options: Any
) -> None:
    import shlex

    body: dict[str, Any] = {}
    if check_words:
        body["check"] = _check(tuple(shlex.split(check_words)), options)
    elif parts := _of_check(options):
        body["check"] = parts
    body |= _fields(options)
    if no_needs:
        body["depends_on"] = []
    if no_remedy:
        body["remedy"] = None
    if not body:
        raise CommandError("nothing is to be changed", exit_code=USAGE)
    found = session.api.call("PATCH", service_path(name), body).body
    if not session.out.answer(found):
        session.out.say(f"{name} is changed")


def _check(words: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Raises CommandError for what is no check."""
    first, *rest = words
    if first == "exec" and rest:
        return {"type": "exec", "command": rest}
    if rest:
        raise CommandError(f"{' '.join(words)!r} is no check", exit_code=USAGE, next_step="omni services add --help")
    if first == "heartbeat":
        return {"type": "heartbeat"}
    if first.startswith(("http://", "https://")):
        return {"type": "http", "url": first, **_of_check(options)}
    parts = urlsplit(first)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme == "tcp" and host and port:
        return {"type": "tcp", "host": host, "port": port}
    if parts.scheme == "tls" and host:
        return {"type": "tls", "host": host, "port": port or 443, **_of_check(options)}
    raise CommandError(f"{first!r} is no check", exit_code=USAGE, next_step="omni services add --help")


def _of_check(options: dict[str, Any]) -> dict[str, Any]:
    found = {name: options[name] for name in ("contains", "warn_days", "fail_days") if options.get(name) is not None}
    return {**found, "verify": False} if options.get("no_verify") else found


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """What was given, as the API wants it."""
    plain = ("description", "owner", "severity", "interval_s", "timeout_s", "healthy_threshold", "unhealthy_threshold",
             "start_period_s", "vantage_points")  # fmt: skip
    body = {name: options[name] for name in plain if options.get(name) is not None}
    if options.get("depends_on"):
        body["depends_on"] = list(options["depends_on"])
    remedy = _remedy(options)
    return {**body, "remedy": remedy} if remedy else body


def _remedy(options: dict[str, Any]) -> dict[str, Any]:
    import shlex

    kinds: list[dict[str, Any]] = []
    if options.get("restart_app"):
        kinds.append({"type": "restart_app", "app": options["restart_app"]})
    if options.get("run_task"):
        app, command = options["run_task"]
        kinds.append({"type": "run_task", "app": app, "command": shlex.split(command)})
    if options.get("call_url"):
        kinds.append({"type": "webhook", "url": options["call_url"]})
    if len(kinds) > 1:
        raise CommandError("one remedy is possible: --restart-app, --run-task or --call", exit_code=USAGE)
    found = kinds[0] if kinds else {}
    bounds = {name: options[name] for name in ("after_s", "backoff_s", "max_per_hour") if options.get(name) is not None}
    if options.get("secret_from"):
        bounds["secret"] = _secret(options["secret_from"])
    return {**found, **bounds}


def _secret(source: str) -> str:
    try:
        return (sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")).strip()
    except OSError as error:
        raise CommandError(f"{source}: {error.strerror}", exit_code=USAGE) from None


@services.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.argument("name")
@click.pass_obj
def remove(session: Session, name: str, yes: bool) -> None:
    """Watch the service NAME no more."""
    if not yes:
        click.confirm(f"Watch {name} no more?", abort=True, err=True)
    session.api.call("DELETE", service_path(name))
    if not session.out.answer({"removed": name}):
        session.out.say(f"{name} is watched no more")


@services.command()
@click.option("--node", help="Only what this node saw.")
@click.option("--outcome", type=click.Choice(["passing", "warning", "failing"]))
@click.option("--limit", default=30, show_default=True, type=click.IntRange(1))
@click.argument("name")
@click.pass_obj
def checks(session: Session, name: str, node: str | None, outcome: str | None, limit: int) -> None:
    """Show what the checks of NAME came to, newest first: a row is checks at one node that came out the same."""
    given = {key: value for key, value in (("node", node), ("outcome", outcome)) if value}
    items = list(session.api.pages(service_path(name, "checks"), limit, **given))
    if session.out.answer({"items": items}):
        return
    rows = [(c["from"], c["node"], c["outcome"], c["checks"], c["latency_ms"], c["detail"]) for c in items]
    session.out.table(("FROM", "NODE", "OUTCOME", "CHECKS", "MS", "DETAIL"), rows, "nothing was checked yet")


@services.command()
@click.option("--for", "span", metavar="SPAN", help="Ends by itself, such as 90m, 2h, 1d.")
@click.argument("name")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.pass_obj
def maintenance(session: Session, name: str, switch: str, span: str | None) -> None:
    """Switch the maintenance of NAME on or off: while it is on, nothing that is seen counts."""
    body: dict[str, Any] = {"maintenance": switch == "on"}
    if span and switch == "on":
        body["maintenance_until"] = from_now(span)
    found = session.api.call("PATCH", service_path(name), body).body
    if not session.out.answer(found):
        until = f" until {found['maintenance_until']}" if found.get("maintenance_until") else ""
        session.out.say(f"{name} is under maintenance{until}" if found["maintenance"] else f"{name} is watched again")
