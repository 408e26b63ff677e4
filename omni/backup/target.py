"""The database that is restored into: whether it may be, and what is done to it.

Owns emptiness, schema, loading, and the proof that what was loaded is what the archive holds. Everything here runs
under `gate.maintenance`; who owns the database meanwhile is `restore`'s business.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from django.apps import apps as current
from django.apps.registry import Apps
from django.conf import settings
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import AutoField, BigAutoField

from consensus import gate
from omni.backup import Refused, tables
from omni.backup.archive import Counted, Reader
from omni.backup.create import write_lines
from omni.backup.manifest import Manifest, TablePart
from omni.kernel.tables import TELEMETRY
from omni.settings_databases import shares_schema

_BATCH_ROWS, _BATCH_BYTES = 10_000, 8 << 20  # of one transaction, whichever is less
# New rows get ids far above those of the backup: a host that outlived the database may still run an instance that was
# made after it, and must never take a new one for that. Not a multiple of the users that apps run as (20,000).
ID_JUMP = 1_010_000

Node = tuple[str, str]


def aliases() -> list[str]:
    return [DEFAULT_DB_ALIAS] + ([] if shares_schema(settings.CONFIG) else [TELEMETRY])


def alias_of(model: tables.AnyModel) -> str:
    return TELEMETRY if tables.is_telemetry(model) and not shares_schema(settings.CONFIG) else DEFAULT_DB_ALIAS


def content() -> str:
    """What the database holds already, in words; empty when nothing that anybody would miss."""
    for model in tables.models(current):
        connection = connections[alias_of(model)]
        if model._meta.label_lower in tables.MADE_BY_MIGRATE or model._meta.db_table not in _table_names(connection):
            continue
        if model._base_manager.using(connection.alias).exists():
            return f"it holds rows ({model._meta.verbose_name_plural})"
    return ""


def _table_names(connection: BaseDatabaseWrapper) -> list[str]:
    try:
        return connection.introspection.table_names()
    except Error as error:
        raise Refused(f"the database cannot be reached: {' '.join(str(part) for part in error.args)}") from error


def check_schema(found: Manifest, *, replace: bool) -> None:
    """Refuse an archive of a newer version, and a database whose schema is newer than the archive's."""
    wanted = set(found.schema_state)
    for alias in aliases():
        executor = MigrationExecutor(connections[alias])
        unknown = sorted(wanted - set(executor.loader.disk_migrations))
        if unknown:
            raise Refused(
                f"the backup was made by a newer version ({found.version}): this one does not know the migration "
                f"{'.'.join(unknown[0])}. Install that version, restore, and then change versions"
            )
        beyond = sorted(set(MigrationRecorder(connections[alias]).applied_migrations()) - wanted)
        if beyond:
            raise Refused(
                f"the database has a newer schema than the backup ({'.'.join(beyond[0])}). Make a new empty database "
                "(SQLite: move the files away) and restore into that"
                + ("; --replace empties tables, it does not change them back" if replace else "")
            )


def empty() -> None:
    """Delete every row of ours."""
    with gate.maintenance("restore"):
        for alias in aliases():
            connection = connections[alias]
            there = set(_table_names(connection))
            ours = [
                model._meta.db_table
                for model in current.get_models(include_auto_created=True)
                if model._meta.managed
                and model._meta.db_table in there
                and model._meta.label_lower != "consensus.fence"
            ]
            with connection.constraint_checks_disabled():
                for table in ours:
                    with transaction.atomic(using=alias), connection.cursor() as cursor:
                        cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")  # noqa: S608 - ours


def bring_schema(found: Manifest) -> Apps:
    """Make the tables as the backup had them; the models of that time."""
    state = None
    with gate.maintenance("restore"):
        for alias in aliases():
            executor = MigrationExecutor(connections[alias])
            executor.loader.check_consistent_history(connections[alias])
            executor.migrate(_leaves(executor, set(found.schema_state)))
            if alias == DEFAULT_DB_ALIAS:
                state = executor.loader.project_state(_leaves(executor, set(found.schema_state)))
    assert state is not None  # noqa: S101 - the default database is always among them
    return state.apps


def _leaves(executor: MigrationExecutor, wanted: set[Node]) -> list[Node]:
    """The last of the wanted migrations of each app."""
    graph = executor.loader.graph
    found = []
    for node in sorted(wanted & set(graph.nodes)):
        children = {(child.key[0], child.key[1]) for child in graph.node_map[node].children}
        if not any(child[0] == node[0] and child in wanted for child in children):
            found.append(node)
    return found


def load(reader: Reader, registry: Apps, say: Callable[[str], None]) -> None:
    """Every row of the archive, then the proof: constraints hold, and each table reads as the archive's did."""
    models = {model._meta.label_lower: model for model in tables.models(registry)}
    missing = [part.model for part in reader.manifest.tables if part.model not in models]
    if missing:
        raise Refused(f"the archive holds rows of {', '.join(missing)}, which this version does not know")
    with gate.maintenance("restore"):
        for part in reader.manifest.tables:
            model = models[part.model]
            with connections[alias_of(model)].constraint_checks_disabled():
                _load_table(reader, part, model)
            _check_table(part, model)
            if part.rows:
                say(f"{part.model}: {part.rows:,} rows")
        for alias in aliases():
            connections[alias].check_constraints()


def _load_table(reader: Reader, part: TablePart, model: tables.AnyModel) -> None:
    connection = connections[alias_of(model)]
    decoder = tables.Decoder(model, part.columns, connection)
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(field.column)) for field in decoder.fields)
    marks = ", ".join(["%s"] * len(decoder.fields))
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks})"  # noqa: S608 - names of our models
    with reader.open(part.part) as file:
        for lines in _batches(io.BufferedReader(file, 1 << 20)):  # type: ignore[type-var]
            values = [decoder.row(line) for line in lines]
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.executemany(sql, values)


def _batches(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_table(part: TablePart, model: tables.AnyModel) -> None:
    counted = Counted()
    rows = write_lines(model, counted, alias_of(model))
    if (rows, counted.sha256) != (part.rows, part.sha256):
        raise Refused(
            f"what was loaded into {part.model} does not read as the backup does; the restore is not finished"
        )


def jump_ids(registry: Apps) -> None:
    """Let the next rows have ids that nobody can have seen before."""
    with gate.maintenance("restore"):
        for model in tables.models(registry):
            key = model._meta.pk
            if not isinstance(key, (AutoField, BigAutoField)) or model._meta.label_lower in tables.MADE_BY_MIGRATE:
                continue
            connection = connections[alias_of(model)]
            last = model._base_manager.using(connection.alias).order_by(f"-{key.attname}").values_list("pk", flat=True)
            _set_next_id(connection, model._meta.db_table, int(last.first() or 0) + ID_JUMP)


def _set_next_id(connection: BaseDatabaseWrapper, table: str, last: int) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"ALTER TABLE {connection.ops.quote_name(table)} AUTO_INCREMENT = {last + 1}")
            return
        cursor.execute("UPDATE sqlite_sequence SET seq = %s WHERE name = %s", [last, table])
        if cursor.rowcount == 0:
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, last])


def bring_up_to_date() -> None:
    """From the schema of the backup to this version's."""
    call_command("migrate_all", verbosity=0)
