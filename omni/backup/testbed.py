"""A platform's data without a platform, for tests and the bench: `python -m omni.backup.testbed seed|write …`.

Owns the making of rows and artifacts in the database and state directory that the environment names. Tests only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

_LINE = "GET /orders/{0:08d}?page=2 200 in 12 ms, cache miss, shard {0:04x}: a line as long as lines of logs are"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m omni.backup.testbed")
    parser.add_argument("what", choices=("seed", "write"))
    parser.add_argument("--apps", type=int, default=5)
    parser.add_argument("--lines", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    import django

    django.setup()
    if options.what == "seed":
        seed(options.apps, options.lines)
    else:
        write(options.seconds)
    return 0


def seed(apps: int, lines: int) -> None:
    """Keys, schema, a first leader's claim, apps with everything that hangs on them, and log lines."""
    from django.conf import settings
    from django.core.management import call_command

    from accounts import services as accounts
    from accounts import tokens
    from consensus import fence, gate, takeover
    from omni.kernel import keys, secret_files
    from omni.kernel.context import system

    config = settings.CONFIG
    config.state.mkdir(parents=True, exist_ok=True)
    secret_files.ensure_keys(config)
    settings.OMNI_MASTER_KEYS[:] = keys.master_keys(config)  # made after the settings were read
    token = secret_files.read_or_create(config.state / "admin.token", lambda: tokens.mint().secret)
    call_command("migrate_all", verbosity=0)
    claim = fence.claim(keys.cluster_id(config), config.me.id)
    with takeover.leading(claim.epoch, claim.claim_id, config.me.id):
        gate.run(
            lambda tx: accounts.bootstrap(tx, admin_token=token, admin_password="a password of tests"),  # noqa: S106
            actor=system("test"),
            cause="seed",
        )
        _seed_apps(apps)
    _seed_lines(apps, lines)


def _seed_apps(count: int) -> None:
    from accounts.models import Org
    from consensus import gate
    from omni.kernel.context import system
    from omni.testing import factories

    org = Org.objects.first()
    facts = {"runtimes": ["process"], "note": "naïve ✓", "deep": {"b": [1, None, 2.5], "a": True}}
    nodes = [factories.make_node(name=f"127.0.0.1-{port}", facts=facts) for port in (8000, 9999)]
    for number in range(count):
        app = factories.make_app(org, f"app-{number:05d}", env={"KEY": f"secret of {number}"})
        artifact = _artifact(number)
        build = factories.make_build(app, "1", artifact=artifact, status="succeeded", release_number=1)
        release = factories.make_release(app, build=build, package=artifact)
        deployment = factories.make_deployment(app, release, status="succeeded")
        node = nodes[number % len(nodes)]
        factories.make_instance(app, release, node, deployment=deployment, on_node=True, address="127.0.0.1:20000")
        gate.run(lambda tx, app=app: tx.record("app.created", "app", app.pk), actor=system("test"), cause="seed")  # type: ignore[misc]


def _artifact(number: int) -> Any:
    from django.core.files.base import ContentFile

    from omni.testing import factories
    from releases.models import Artifact
    from releases.storage import store

    data = f"artifact {number % 100} ".encode() * 200  # apps share some
    digest = hashlib.sha256(data).hexdigest()
    known = Artifact.objects.filter(pk=digest).first()
    if known is not None:
        return known
    store().put_file(digest, ContentFile(data))
    return factories.make_artifact(sha256=digest, size=len(data))


def _seed_lines(apps: int, count: int) -> None:
    from instances.models import Instance
    from instances.telemetry import statements as sql

    ids = list(Instance.objects.order_by("id").values_list("id", "app_id")) or [(1, 1)]
    each = -(-count // len(ids)) if apps else 0

    def rows() -> Iterator[tuple[Any, ...]]:
        for instance_id, app_id in ids:
            for seq in range(1, each + 1):
                yield instance_id, seq, app_id, 1_700_000_000_000_000 + seq, seq % 2, _LINE.format(seq)

    stream = islice(rows(), count)
    columns = ("instance_id", "seq", "app_id", "at_us", "stream", "line")
    while part := list(islice(stream, 20_000)):
        sql.insert("instances_logline", columns, part)


def write(seconds: float) -> None:
    """One gated write after the other, as a leader would; prints how many."""
    from accounts.models import Org
    from consensus import gate, takeover
    from consensus.fence import read
    from omni.kernel.context import system

    def verb(tx: gate.Transaction) -> None:
        name = f"org-{tx.at.timestamp()}"
        row = Org.objects.create(name=name, created_at=tx.at, updated_at=tx.at)
        tx.record("org.created", "org", row.pk, org_id=row.pk, change={"name": name})

    deadline, count = time.monotonic() + seconds, 0
    with takeover.leading(read()[0], "test", "127.0.0.1-8000"):
        while time.monotonic() < deadline:
            gate.run(verb, actor=system("test"), cause="write")
            count += 1
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
