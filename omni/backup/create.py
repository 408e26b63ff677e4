"""Writing an archive while the platform runs.

Owns the order: artifacts first (they take long and never change), then one snapshot of all rows; an artifact that is
new in the snapshot is added, and one that went in between is not in the snapshot any more. The archive gets its name
only when everything in it was read and hashed. Reads; changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from consensus import fence, takeover
from omni.backup import Refused, cluster, key_files, manifest, snapshot, tables
from omni.backup.archive import Counted, Writer
from omni.backup.artifacts import Artifacts
from omni.backup.manifest import Manifest, TablePart
from omni.kernel import clock, keys
from omni.version import VERSION

_SNAPSHOTS = 5  # tries, when artifacts come and go at the very moment
_GATHERED = 1 << 18  # bytes of lines that are hashed and packed at once


@dataclass(frozen=True, slots=True)
class Options:
    """`passphrase`: seal the keys with it and put them in; empty: leave them out."""

    path: Path
    telemetry: bool = True
    passphrase: str = ""
    overwrite: bool = False
    without_damaged: bool = False
    say: Callable[[str], None] = lambda _line: None


def create(options: Options) -> Manifest:
    """Write the archive; what it holds. Raises Refused, and then leaves no file."""
    if options.path.exists() and not options.overwrite:
        raise Refused(f"{options.path} is there already; give another name, or --overwrite")
    if not options.path.parent.is_dir():
        raise Refused(f"{options.path.parent} is no directory")
    _check_state()
    writer = Writer(options.path)
    try:
        found = _fill(writer, options)
        writer.finish(found, keys.cluster_secret(settings.CONFIG))
    except BaseException:
        writer.abandon()
        raise
    return found


def _check_state() -> None:
    """Refuse what is no whole platform: one that never started, one half restored, one half migrated."""
    config = settings.CONFIG
    if not keys.cluster_secret(config):
        raise Refused(f"{config.state} holds no cluster.secret: no platform was ever started with this state directory")
    executor = MigrationExecutor(connections["default"])
    behind = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if behind:
        raise Refused(f"the database lacks {len(behind)} migrations; run: .venv/bin/python manage.py migrate_all")
    epoch, _, theirs, _ = fence.read()
    if takeover.is_unfinished(theirs):
        raise Refused("a restore into this database did not finish; repeat it: cluster_restore PATH --replace")
    if not epoch:
        raise Refused("the database has never had a leader: there is nothing to back up")


def _fill(writer: Writer, options: Options) -> Manifest:
    artifacts = Artifacts(writer, options.say, leave_out_damaged=options.without_damaged)
    for _ in range(_SNAPSHOTS):
        artifacts.add_all()
        with snapshot.taken():
            if artifacts.add_new():
                return _describe(writer, options, artifacts)
    raise Refused("artifacts kept disappearing while they were read; try again when fewer apps are being deleted")


def _describe(writer: Writer, options: Options, artifacts: Artifacts) -> Manifest:
    """All rows of the snapshot, the keys, and what they all are."""
    config = settings.CONFIG
    epoch, write_index, theirs, _ = fence.read()
    ours = keys.cluster_id(config)
    if theirs != ours:
        raise Refused(
            f"the database belongs to cluster {theirs}, this is cluster {ours}: the keys would not fit the rows"
        )
    wanted = tables.models(apps, telemetry=options.telemetry)
    parts = [_add_table(writer, model, options.say) for model in wanted]
    found = key_files.gather(config)
    if options.passphrase:
        with writer.part(key_files.PART) as out:
            out.write(key_files.seal(found, options.passphrase))
    return Manifest(
        format=manifest.FORMAT,
        created_at=clock.now().isoformat(timespec="seconds"),
        version=VERSION,
        cluster_id=theirs,
        epoch=epoch,
        write_index=write_index,
        database=connections["default"].vendor,
        telemetry=options.telemetry,
        schema_state=sorted(MigrationRecorder(connections["default"]).applied_migrations()),
        members=cluster.members(config),
        tables=parts,
        artifacts=artifacts.parts(),
        keys=sorted(found),
        keys_in_archive=bool(options.passphrase),
        probe=key_files.make_probe(keys.master_keys(config)),
    )


def _add_table(writer: Writer, model: tables.AnyModel, say: Callable[[str], None]) -> TablePart:
    name = tables.part_name(model)
    with writer.part(name) as out:
        count = write_lines(model, out)
    if count:
        say(f"{model._meta.label}: {count:,} rows")
    return TablePart(
        model=model._meta.label_lower,
        part=name,
        columns=tables.columns(model),
        rows=count,
        size=out.size,
        sha256=out.sha256,
    )


def write_lines(model: tables.AnyModel, out: Counted, using: str = "") -> int:
    """Every row of the model as lines into `out`; how many."""
    count, gathered = 0, bytearray()
    for row in snapshot.rows(model, using):
        gathered += tables.encode(row)
        count += 1
        if len(gathered) >= _GATHERED:
            out.write(bytes(gathered))
            gathered.clear()
    out.write(bytes(gathered))
    return count
