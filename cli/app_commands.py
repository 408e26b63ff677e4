"""`omni apps …`, `scale`, `start`, `stop`, `restart`, `ps`, `env`, `logs`, `open`: looking after an app."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.errors import UNHEALTHY, USAGE, CommandError
from cli.release_commands import TIMEOUT_S, finish
from cli.session import Command, Group, Session


@click.group(cls=Group)
def apps() -> None:
    """List, show, create and delete apps."""


@apps.command("list")
@click.option("--limit", default=500, show_default=True, type=click.IntRange(1))
@click.option("--status", help="Only apps in this state.")
@click.option("--query", "-q", "q", help="Only apps whose name contains this.")
@click.pass_obj
def list_apps(session: Session, limit: int, status: str | None, q: str | None) -> None:
    """List the apps."""
    items = list(session.api.pages("/app", limit, status=status, q=q))
    if session.out.answer({"items": items}):
        return
    rows = [(a["id"], a["name"], a["status"], a["instances"], (a.get("urls") or [""])[0]) for a in items]
    session.out.table(("ID", "NAME", "STATUS", "INSTANCES", "URL"), rows, "no apps yet; omni up DIR makes one")


@apps.command()
@click.argument("app")
@click.pass_obj
def info(session: Session, app: str) -> None:
    """Show everything about APP."""
    from cli.api import app_path
    from cli.output import size

    found = session.api.get(app_path(app, "info")).body
    if session.out.answer(found):
        return
    version, counts = found.get("version") or {}, found.get("instances_summary") or {}
    figures, latest = found.get("metrics") or {}, found.get("deployment") or {}
    session.out.facts(
        [
            ("name", found["name"]),
            ("id", found["id"]),
            ("org", (found.get("org") or {}).get("name")),
            ("status", found["status"]),
            ("url", " ".join(found.get("urls") or [])),
            ("version", version.get("current")),
            ("previous", version.get("previous")),
            ("instances", f"{counts.get('healthy', '-')} healthy of {counts.get('desired', '-')}"),
            *_by_type(found.get("processes_summary") or {}),
            ("deployment", f"{latest['id']} {latest.get('phase') or latest.get('status')}" if latest else None),
            ("frozen", (found.get("freeze") or {}).get("reason")),
            ("cpu %", figures.get("cpu_percent")),
            ("memory", size(figures.get("memory_bytes"))),
            ("requests/s", figures.get("requests_per_second")),
            ("p95 ms", (figures.get("response_ms") or {}).get("p95")),
        ]
    )


def _by_type(summaries: dict[str, Any]) -> list[tuple[str, str]]:
    """One line for each process type, where there are others than web."""
    if list(summaries) in ([], ["web"]):
        return []
    return [(f"  {name}", f"{one['healthy']} healthy of {one['desired']}") for name, one in summaries.items()]


@apps.command()
@click.argument("name")
@click.option("--org", help="The org it belongs to.")
@click.option("--instances", "-n", type=click.IntRange(0))
@click.option("--memory", "memory_mb", type=click.IntRange(16), help="Memory per instance, in MB.")
@click.option("--runtime", type=click.Choice(["process", "docker", "swarm"]))
@click.pass_obj
def create(session: Session, /, name: str, **wanted: Any) -> None:
    """Create an app; omni up does it by itself."""
    body = {"name": name, **{key: value for key, value in wanted.items() if value is not None}}
    found = session.api.call("POST", "/app/create", body).body
    if not session.out.answer(found):
        session.out.say(f"created {found['name']} (id {found['id']})")


@apps.command()
@click.argument("app")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--with-volumes", is_flag=True, help="Also when it has volumes or snapshots: their data is destroyed.")
@click.pass_obj
def delete(session: Session, app: str, yes: bool, with_volumes: bool) -> None:
    """Delete APP with its instances, releases, builds and logs."""
    from cli.api import app_path

    if not yes:
        click.confirm(f"Delete {app} and all that belongs to it?", abort=True, err=True)
    confirmed = {"confirm": session.api.get(app_path(app, "info")).body["name"]} if with_volumes else None
    found = session.api.call("DELETE", app_path(app), query=confirmed).body
    if not session.out.answer(found):
        session.out.say(f"{app} is being deleted")


@apps.command()
@click.argument("app")
@click.argument("reason")
@click.option("--until", help="When it ends by itself (RFC 3339).")
@click.pass_obj
def freeze(session: Session, app: str, reason: str, until: str | None) -> None:
    """Let nothing new be deployed to APP, for a REASON that is told to whoever tries."""
    _freeze(session, app, {"reason": reason, **({"until": until} if until else {})}, f"{app} is frozen: {reason}")


@apps.command()
@click.argument("app")
@click.pass_obj
def unfreeze(session: Session, app: str) -> None:
    """Lift the freeze of APP."""
    _freeze(session, app, None, f"{app} is no longer frozen")


def _freeze(session: Session, app: str, wanted: dict[str, str] | None, done: str) -> None:
    from cli.api import app_path

    body = session.api.call("PATCH", app_path(app), {"freeze": wanted}).body
    if not session.out.answer(body):
        session.out.say(done)


@click.command(cls=Command)
@click.argument("app")
@click.argument("counts", nargs=-1, required=True, metavar="COUNT|TYPE=COUNT...")
@click.option("--wait", is_flag=True, help="Wait until they all run.")
@click.option("--timeout", default=TIMEOUT_S, show_default=True)
@click.pass_obj
def scale(session: Session, app: str, counts: tuple[str, ...], wait: bool, timeout: float) -> None:
    """Run APP with COUNT instances of web, or of each process TYPE named: omni scale shop web=3 worker=2."""
    from cli.api import app_path

    wanted = _counts(counts)
    body: dict[str, Any] = {"instances": wanted["web"]} if list(wanted) == ["web"] else {"processes": wanted}
    answer = session.api.call("POST", app_path(app, "scale"), body).body
    finish(session, app, answer, wait=wait, timeout=timeout, done=f"{app} runs {' '.join(counts)}")


def _counts(given: tuple[str, ...]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for text in given:
        name, equals, count = text.rpartition("=")
        if not (count.isascii() and count.isdigit()) or (equals and not name):
            raise CommandError(f"{text!r} is neither COUNT nor TYPE=COUNT", exit_code=USAGE)
        if (name := name or "web") in wanted:
            raise CommandError(f"{name} is named twice", exit_code=USAGE)
        wanted[name] = int(count)
    return wanted


def _verb(name: str, summary: str, done: str) -> click.Command:
    @click.command(name, cls=Command, help=summary)
    @click.argument("app")
    @click.option("--wait", is_flag=True, help="Wait until it is done.")
    @click.option("--timeout", default=TIMEOUT_S, show_default=True)
    @click.pass_obj
    def command(session: Session, app: str, wait: bool, timeout: float) -> None:
        from cli.api import app_path

        body = session.api.call("POST", app_path(app, name)).body
        finish(session, app, body, wait=wait, timeout=timeout, done=f"{app} {done}")

    return command


start = _verb("start", "Start APP's instances.", "runs")
stop = _verb("stop", "Stop APP's instances.", "is stopped")
restart = _verb("restart", "Restart APP's instances.", "has been restarted")


@click.command(cls=Command)
@click.argument("app")
@click.option("--all", "-a", "every", is_flag=True, help="Those that are gone, too.")
@click.option("--instance", "-i", type=int, help="Everything about this one, also long gone, with how it ended.")
@click.pass_obj
def ps(session: Session, app: str, every: bool, instance: int | None) -> None:
    """List the instances of APP. Exit code 3 when one that should run is not healthy."""
    from cli.api import app_path
    from cli.output import age, size

    if instance is not None:
        _instance(session, app, instance)
        return
    items = list(session.api.pages(app_path(app, "instances"), 5000, **({"status": "all"} if every else {})))
    items.sort(key=lambda i: (i.get("process_type") or "web", i["slot"] or 0, i["id"] or 0))
    if not every:
        items = [i for i in items if i["status"] not in ("stopped",)]
    rows = [
        (
            i["id"],
            i.get("process_type"),
            i["slot"],
            i["status"],
            i["health"],
            i["version"],
            i["node"],
            i["address"],
            i["cpu_percent"],
            size(i["memory_bytes"]),
            i["restarts"],
            age(i["uptime_s"]),
        )
        for i in items
    ]
    heads = ("ID", "TYPE", "SLOT", "STATUS", "HEALTH", "VERSION", "NODE", "ADDRESS", "CPU %", "MEMORY", "RESTARTS",
             "UP")  # fmt: skip
    if not session.out.answer({"items": items}):
        session.out.table(heads, rows, "no instances")
    wanted = [i for i in items if i.get("desired") != "remove"]
    if any(i["status"] in ("crashed", "lost") or i["health"] == "unhealthy" for i in wanted):
        click.get_current_context().exit(UNHEALTHY)


def _instance(session: Session, app: str, instance: int) -> None:
    """One instance, with the evidence of its last end."""
    from cli.api import app_path
    from cli.output import clean

    found = session.api.get(app_path(app, "instances", instance, "details")).body
    if session.out.answer(found):
        return
    end, probe = found.get("last_exit") or {}, found.get("last_probe") or {}
    ended = next((f"{how} {end[how]}" for how in ("code", "signal") if end.get(how) is not None), None)
    names = ("id", "slot", "status", "health", "version", "node", "address", "reason", "detail", "restarts")
    session.out.facts(
        [
            *((name, found.get(name)) for name in names),
            ("started", found.get("started_at")),
            ("finished", found.get("finished_at")),
            ("last exit", f"{ended}, out of memory" if end.get("oom") else ended),
            ("last probe", probe.get("detail")),
        ]
    )
    for line in end.get("lines") or []:
        session.out.say(f"  {clean(str(line))}")
    session.out.say(f"more: omni logs {app} --instance {instance}")


@click.group(cls=Group)
def env() -> None:
    """Show and change the environment of an app."""


@env.command()
@click.argument("app")
@click.argument("key", required=False)
@click.pass_obj
def get(session: Session, app: str, key: str | None) -> None:
    """Show APP's environment, or one KEY; secrets are not shown."""
    values = _environment(session, app)[0]
    if key is not None:
        if key not in values:
            raise CommandError(f"{app} has no {key}", next_step=f"omni env set {app} {key}=VALUE")
        values = {key: values[key]}
    if session.out.answer(values):
        return
    for name, value in sorted(values.items()):
        shown = "(secret)" if isinstance(value, dict) else str(value)
        click.echo(shown if key is not None else f"{name}={shown}")


@env.command("set")
@click.argument("app")
@click.argument("pairs", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--secret", is_flag=True, help="Never show these values again.")
@click.pass_obj
def set_env(session: Session, app: str, pairs: tuple[str, ...], secret: bool) -> None:
    """Set KEYs of APP; its instances are replaced. VALUE `-` is read from standard input."""
    wanted: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"{pair!r} is not KEY=VALUE", exit_code=USAGE)
        if value == "-":
            value = sys.stdin.read().removesuffix("\n")
        wanted[name] = {"value": value, "secret": True} if secret else value
    _change(session, app, wanted)


@env.command()
@click.argument("app")
@click.argument("keys", nargs=-1, required=True)
@click.pass_obj
def unset(session: Session, app: str, keys: tuple[str, ...]) -> None:
    """Remove KEYs of APP."""
    _change(session, app, dict.fromkeys(keys))


def _environment(session: Session, app: str) -> tuple[dict[str, Any], bool]:
    """The environment, and whether the answer wraps it in `env`."""
    from cli.api import app_path

    body = session.api.get(app_path(app, "config")).body
    wrapped = isinstance(body.get("env"), dict) and "value" not in body["env"] and "secret" not in body["env"]
    return (body["env"] if wrapped else body), wrapped


def _change(session: Session, app: str, wanted: dict[str, Any]) -> None:
    from cli.api import app_path

    wrapped = _environment(session, app)[1]
    body = session.api.call("PATCH", app_path(app, "config"), {"env": wanted} if wrapped else wanted).body
    if not session.out.answer(body):
        session.out.say(f"changed {', '.join(wanted)} of {app}")


@click.command(cls=Command)
@click.argument("app")
@click.option("--follow", "-f", is_flag=True, help="Go on as new lines come.")
@click.option("--tail", "-n", default=100, show_default=True, type=click.IntRange(1), help="How many lines back.")
@click.option("--instance", "-i", type=int, help="Only this instance, also one long gone.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]))
@click.option("--query", "-q", "q", help="Only lines that contain this.")
@click.option("--since", help="Only lines from this time on (RFC 3339).")
@click.pass_obj
def logs(session: Session, /, app: str, follow: bool, tail: int, instance: int | None, **query: str | None) -> None:
    """Show what APP's instances write."""
    from cli import follow as following
    from cli.api import app_path

    path = app_path(app, "logs") if instance is None else app_path(app, "instances", instance, "logs")
    given: dict[str, object] = {"tail": tail, **query}
    if follow:
        found: Any = following.lines(session.api, path, **given)
    else:
        found = session.api.get(path, **given).body["items"]
        if session.out.answer({"items": found}):
            return
    for line in found:
        following.show_line(session.out, line, with_instance=instance is None)


@click.command("open", cls=Command)
@click.argument("app")
@click.option("--print", "only_print", is_flag=True, help="Print the address instead of opening it.")
@click.pass_obj
def open_app(session: Session, app: str, only_print: bool) -> None:
    """Open APP in a browser."""
    from cli.api import app_path

    urls = session.api.get(app_path(app, "info")).body.get("urls") or []
    if not urls:
        raise CommandError(f"{app} has no address yet", next_step=f"omni ps {app}")
    if session.out.answer({"url": urls[0]}):
        return
    click.echo(urls[0])
    if not only_print:
        click.launch(urls[0])
