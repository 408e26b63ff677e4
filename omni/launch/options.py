"""The command line of `./start.sh`. Read by hand: argparse would cost memory for the life of the platform."""

from __future__ import annotations

import sys
from dataclasses import dataclass

USAGE = """usage: ./start.sh [options]

  --config FILE   another configuration than config.json
  --state DIR     where everything is kept (default: var/)
  --demo          deploy examples/hello when ready, and print its address
  --fresh         delete the state first (asks on a terminal)
  --sql           print each request's SQL to the nodes' logs, also without a terminal
  --no-restart    leave a process that dies dead (for tests of failures)
  --help

Ctrl-C or SIGTERM stops everything, the apps' instances included.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """`plan` and `once` serve the tests: a ready-made list of processes, and an end without a signal."""

    config: str = ""
    state: str = ""
    plan: str = ""
    demo: bool = False
    fresh: bool = False
    sql: bool = False
    no_restart: bool = False
    once: bool = False


def parse(arguments: list[str]) -> Options | int:
    """The options, or the exit code when there is nothing to do."""
    values: dict[str, str | bool] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            print(USAGE, end="")
            return 0
        if name in ("--config", "--state", "--plan"):
            values[name[2:]] = value if equals else next(words, "")
            if not values[name[2:]]:
                print(f"{name} wants a value\n\n{USAGE}", end="", file=sys.stderr)
                return 2
        elif word in ("--demo", "--fresh", "--sql", "--no-restart", "--once"):
            values[word[2:].replace("-", "_")] = True
        else:
            print(f"{word} is no option\n\n{USAGE}", end="", file=sys.stderr)
            return 2
    return Options(**values)  # type: ignore[arg-type]
