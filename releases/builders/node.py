"""Node.js: npm installs what package.json names, exactly as locked when there is a lock file.

Without a Procfile the web process is the "start" script of package.json, run without npm in between so that SIGTERM
reaches it, or `node server.js` as npm would have it. A "build" script runs with the development dependencies, which
are removed afterwards.
"""

from __future__ import annotations

import json
from typing import Any

from releases.build_errors import BuildFailed
from releases.builders.base import Command, Plan, Source

PACKAGE = "package.json"
LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
LOOKS_FOR = f"{PACKAGE} (Node.js)"

_QUIET = ["--no-audit", "--no-fund", "--no-progress", "--no-update-notifier", "--loglevel=warn"]


def plan(source: Source) -> Plan | None:
    if not source.has(PACKAGE):
        return None
    scripts = _scripts(source)
    if source.tools.node is None or source.tools.npm is None:
        missing = "node" if source.tools.node is None else "npm"
        raise BuildFailed("node_not_available", f"{PACKAGE} needs Node.js, but the build host has no `{missing}`.")
    process_types = {} if source.procfile is not None else {"web": _start(source, scripts)}
    return Plan("node", _commands(source, "build" in scripts), process_types)


def _scripts(source: Source) -> dict[str, str]:
    try:
        package: Any = json.loads(source.read(PACKAGE))
    except (ValueError, RecursionError) as error:
        raise BuildFailed("bad_package_json", f"{PACKAGE} is not valid JSON: {error}") from error
    if not isinstance(package, dict):
        raise BuildFailed("bad_package_json", f"{PACKAGE} must be an object.")
    scripts = package.get("scripts", {})
    if not isinstance(scripts, dict):
        raise BuildFailed("bad_package_json", f'"scripts" in {PACKAGE} must be an object.')
    return {name: text for name, text in scripts.items() if isinstance(text, str) and text.strip()}


def _start(source: Source, scripts: dict[str, str]) -> str:
    start = scripts.get("start")
    if start and "\n" not in start and "prestart" not in scripts:
        return start.strip()
    if start:
        return "npm start"
    if source.has("server.js"):
        return "node server.js"
    raise BuildFailed(
        "no_web_process",
        f'{PACKAGE} says that this is Node.js, but nothing says how to start it: add a "start" script '
        "or a Procfile (`web: node your_file.js`).",
    )


def _commands(source: Source, has_build: bool) -> list[Command]:
    locked = any(source.has(name) for name in LOCKS)
    install = ["npm", "ci" if locked else "install", *_QUIET]
    if not locked:
        install.append("--no-package-lock")
    if not has_build:
        return [Command(_title(install), [*install, "--omit=dev"], failure="dependencies_failed")]
    return [
        Command(_title(install), [*install, "--include=dev"], failure="dependencies_failed"),
        Command("npm run build", ["npm", "run", "build"], failure="build_script_failed"),
        Command("npm prune", ["npm", "prune", "--omit=dev", *_QUIET], failure="dependencies_failed"),
    ]


def _title(argv: list[str]) -> str:
    return " ".join(argv[:2])
