"""What the console's pages cost the server: `python -m bench.console [--apps 10000 --instances 100000 --nodes 1000]`.

Seeds a database of its own (`manage.py seed`), asks each page in this process by Django's handler, and counts time and
queries. The floor is the same page of a small platform (10 apps, 30 instances, 3 nodes), measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import report, table

_GOAL_MS, _GOAL_QUERIES = 300.0, 20
_ROUNDS = 15
_SMALL = ("10", "30", "3")
_PAGES = {
    "overview": "/admin/",
    "apps": "/admin/app/",
    "apps, searched": "/admin/app/?q=app-77",
    "apps, crashed": "/admin/app/?state=crashed",
    "app": "/admin/app/7/",
    "its releases": "/admin/app/7/releases/",
    "its deployments": "/admin/app/7/deployments/",
    "its events": "/admin/app/7/events/",
    "its figures": "/admin/data/app/7/?window=1h",
    "instance": "/admin/app/7/instances/7/",
    "nodes": "/admin/nodes/",
    "node": "/admin/nodes/2/",
    "cluster": "/admin/cluster/",
    "events": "/admin/events/",
    "events, searched": "/admin/events/?q=nothing-like-it",
    "orgs": "/admin/orgs/",
    "tokens": "/admin/tokens/",
    "hosts' figures": "/admin/data/platform/?window=1h",
    "table of apps": "/admin/apps/app/",
    "table of instances": "/admin/instances/instance/",
    "table of deployments": "/admin/instances/deployment/",
}


def seeded(counts: tuple[str, str, str]) -> dict[str, dict[str, float]]:
    """Each page's figures on a platform of that size."""
    with tempfile.TemporaryDirectory(prefix="bench-console-") as state:
        secret = "0" * 64  # what one process seals the next one opens
        environment = {**os.environ, "OMNI_STATE": state, "OMNI_ENV": "development", "OMNI_CLUSTER_SECRET": secret}
        python, quiet = sys.executable, subprocess.DEVNULL
        apps, instances, nodes = counts
        sizes = ["--apps", apps, "--instances", instances, "--nodes", nodes]
        subprocess.run([python, "manage.py", "migrate_all"], env=environment, check=True, stdout=quiet)
        subprocess.run([python, "manage.py", "seed", *sizes], env=environment, check=True, stdout=quiet)
        out = subprocess.run(
            [python, "-m", "bench.console", "--measure"], env=environment, check=True, stdout=subprocess.PIPE
        )
    found: dict[str, dict[str, float]] = json.loads(out.stdout.splitlines()[-1])
    return found


def measure() -> dict[str, dict[str, float]]:
    """In a process whose settings point to the seeded database."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client

    from consensus import gate

    with gate.maintenance("bench"):
        user = User.objects.create(username="bench", is_staff=True, is_superuser=True)
    client = Client(HTTP_HOST="127.0.0.1")
    client.force_login(user, backend="accounts.console_login.ConsoleBackend")
    return {name: _page(client, path) for name, path in _PAGES.items()}


def _page(client: Any, path: str) -> dict[str, float]:
    from django.db import connections
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connections["default"]) as one, CaptureQueriesContext(connections["telemetry"]) as other:
        answer = client.get(path)
    queries = len(one) + len(other)  # before the next request forgets them
    assert answer.status_code == 200, (path, answer.status_code)
    taken = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        client.get(path)
        taken.append((time.perf_counter() - begun) * 1000)
    taken.sort()
    return {"ms": taken[_ROUNDS // 2], "worst": taken[-1], "queries": queries,
            "kib": len(answer.content) / 1024}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.console")
    parser.add_argument("--apps", default="10000")
    parser.add_argument("--instances", default="100000")
    parser.add_argument("--nodes", default="1000")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    if given.measure:
        print(json.dumps(measure()))
        return
    small, large = seeded(_SMALL), seeded((given.apps, given.instances, given.nodes))
    rows = [
        [name, f"{one['ms']:.0f}", f"{one['worst']:.0f}", f"{small[name]['ms']:.0f}", f"{one['queries']:.0f}",
         f"{one['kib']:.0f}"]
        for name, one in large.items()
    ]  # fmt: skip
    slow = [name for name, one in large.items() if one["ms"] > _GOAL_MS]
    many = [name for name, one in large.items() if one["queries"] > _GOAL_QUERIES]
    report(
        "Console: server time and queries of each page",
        [
            *table(["page", "ms", "slowest", "small platform, ms", "queries", "KiB"], rows),
            "",
            f"- {given.apps} apps, {given.instances} instances, {given.nodes} nodes, SQLite; median of {_ROUNDS}",
            f"- at most {_GOAL_MS:.0f} ms: {'met' if not slow else 'MISSED by ' + ', '.join(slow)}",
            f"- at most {_GOAL_QUERIES} queries, session and user among them: "
            f"{'met' if not many else 'MISSED by ' + ', '.join(many)}",
        ],
    )


if __name__ == "__main__":
    main()
