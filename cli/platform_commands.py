"""`omni status`, `doctor`, `login`, `config`, `completion`: the platform, and this command's own settings."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cli.errors import UNHEALTHY, CommandError
from cli.session import Command, Session


@click.command(cls=Command)
@click.pass_obj
def status(session: Session) -> None:
    """Show the cluster and its nodes. Exit code 3 when something is down."""
    cluster = session.api.get("/cluster/status").body
    nodes = list(session.api.pages("/nodes", 5000))
    healthy = bool(cluster.get("leader")) and all(member.get("reachable") for member in cluster["members"])
    healthy = healthy and all(node.get("status") in ("ready", "draining") for node in nodes)
    if not session.out.answer({"healthy": healthy, "cluster": cluster, "nodes": nodes}):
        leader = cluster.get("leader") or session.out.paint("none", "red")
        index = f"epoch {cluster.get('epoch')}, write index {cluster.get('write_index')}"
        session.out.say(f"cluster {cluster.get('cluster_id')}  leader {leader}  {index}\n")
        heads = ("MEMBER", "ADDRESS", "ROLE", "REACHABLE", "LAG", "VERSION")
        keys = ("id", "address", "role", "reachable", "match_lag", "version")
        session.out.table(heads, [[member.get(key) for key in keys] for member in cluster["members"]])
        session.out.say("")
        session.out.table(
            ("NODE", "STATUS", "INSTANCES", "MEMORY", "CPU"), [_node_row(node) for node in nodes], "no nodes"
        )
    if not healthy:
        click.get_current_context().exit(UNHEALTHY)


def _node_row(node: dict[str, Any]) -> list[object]:
    used, total = node.get("allocated") or {}, node.get("capacity") or {}

    def share(key: str) -> str:
        return f"{used.get(key, '-')} / {total.get(key, '-')}"

    return [
        node.get("name") or node.get("id"),
        node.get("status"),
        node.get("instances"),
        share("memory_mb"),
        share("cpu"),
    ]


@click.command(cls=Command)
@click.pass_obj
def doctor(session: Session) -> None:
    """Check from here to the app: settings, every member, its parts, the token. Exit code 3 when something is wrong."""
    from cli import api, settings

    here = settings.read()
    checks: list[tuple[str, str, str]] = [
        ("settings", "ok", f"server from {here.url_source}, token from {here.token_source}")
    ]
    for url in here.urls:
        one = api.Api(settings.Settings((url,), here.token, "doctor", here.token_source), retry_for_s=0)
        checks.extend(_member_checks(url, one))
    if not here.token:
        checks.append(("token", "failed", "none: omni login, or set OMNI_TOKEN"))
    else:
        try:
            session.api.get("/app", limit=1)
            checks.append(("token", "ok", "the platform accepts it"))
        except CommandError as error:
            checks.append(("token", "failed", error.detail))
    wrong = any(state == "failed" for _, state, _ in checks)
    if not session.out.answer(
        {"healthy": not wrong, "checks": [dict(zip(("check", "status", "detail"), c, strict=True)) for c in checks]}
    ):
        session.out.table(("CHECK", "STATUS", "DETAIL"), checks)
    if wrong:
        click.get_current_context().exit(UNHEALTHY)


def _member_checks(url: str, one: Any) -> list[tuple[str, str, str]]:
    try:
        body = one.get("/health").body
    except CommandError as error:
        problem = error.as_json()
        if "parts" not in problem:
            return [(url, "failed", error.detail)]
        body = problem
    found = [(url, "ok" if body.get("status") != "down" else "failed", str(body.get("status")))]
    for name, part in (body.get("parts") or {}).items():
        state = "failed" if part.get("status") == "down" else "ok" if part.get("status") == "up" else "unknown"
        words = [f"{key} {value}" for key, value in part.items() if key not in ("status",) and value is not None]
        found.append((f"  {name}", state, ", ".join(words)))
    return found


@click.command(cls=Command)
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.pass_obj
def login(session: Session, url: str, token_stdin: bool) -> None:
    """Remember the server URL (several members: with commas between) and a token for it."""
    from cli import api, settings

    urls = settings.split_urls(url)
    given = sys.stdin.readline() if token_stdin else click.prompt("Token", hide_input=True, err=True)
    token = str(given).strip()
    one = api.Api(settings.Settings(urls, token, "login", "prompt"), retry_for_s=5)
    one.get("/app", limit=1)  # refused here rather than at the next command
    file = settings.store(",".join(urls), token)
    if not session.out.answer({"url": list(urls), "file": str(file)}):
        session.out.say(f"logged in to {urls[0]}; kept in {file}")


@click.command(cls=Command)
@click.pass_obj
def config(session: Session) -> None:
    """Show which server and token are used, and where they come from."""
    from cli import settings

    here = settings.read()
    shown = f"{here.token[:12]}…" if len(here.token) > 16 else ("set" if here.token else "")
    facts = {
        "url": ", ".join(here.urls),
        "url_source": here.url_source,
        "token": shown,
        "token_source": here.token_source,
        "file": str(settings.config_file()),
    }
    if not session.out.answer(facts):
        session.out.facts(list(facts.items()))


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
@click.pass_obj
def completion(session: Session, shell: str | None) -> None:
    """Print the completion script for SHELL (default: yours): eval "$(omni completion bash)"."""
    from click.shell_completion import get_completion_class

    from cli.main import omni

    shell = shell or os.path.basename(os.environ.get("SHELL", "bash"))  # noqa: PTH119 - a name, not a path
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"no completion for {shell}", next_step="omni completion bash|zsh|fish")
    source = kind(omni, {}, "omni", "_OMNI_COMPLETE").source()
    if not session.out.answer({"shell": shell, "script": source}):
        sys.stdout.write(source + "\n")
