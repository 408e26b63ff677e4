"""What every command has in common: `--json`, the API, and how failure becomes an exit code.

Owns the click classes that give it to each command, so that no command can forget one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from cli.errors import USAGE, CommandError
from cli.output import Output

if TYPE_CHECKING:
    from cli.api import Api


@dataclass
class Session:
    """Of one run; commands take it by `@click.pass_obj`."""

    out: Output = field(default_factory=Output)
    _api: Any = None

    @property
    def api(self) -> Api:
        if self._api is None:
            from cli import api, settings

            self._api = api.Api(settings.read())
        found: Api = self._api
        return found


def _take_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).out.as_json = True


def _json_option() -> click.Option:
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_take_json, help="Print the answer as JSON."
    )


class Command(click.Command):
    """A command that takes --json."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(_json_option())


class Group(click.Group):
    command_class = Command

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.append(_json_option())


Group.group_class = Group


def run(group: click.Group, argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    session = Session()
    try:
        result = group.main(
            args=list(argv) if argv is not None else None, prog_name="omni", standalone_mode=False, obj=session
        )
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CommandError as error:
        _show(session, error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0


def _show(session: Session, error: CommandError) -> None:
    if session.out.as_json:
        click.echo(json.dumps(error.as_json(), indent=2), err=True)
        return
    label = click.style("error:", fg="red") if sys.stderr.isatty() and session.out.fancy else "error:"
    click.echo(f"{label} {error.detail}", err=True)
    problem = error.as_json()
    for one in problem.get("errors") or []:
        if isinstance(one, dict):
            click.echo(f"  {one.get('pointer', '')}: {one.get('detail', one.get('code', ''))}", err=True)
    if error.next_step:
        click.echo(f"next: {error.next_step}", err=True)
    if problem.get("request_id"):
        click.echo(f"request {problem['request_id']}", err=True)
