"""The verbs of apps: create, change, wish for a release, scale, start, stop, delete.

Owns every write to apps, configuration revisions and domains. Runs inside the gate and reads again what it decides
on. Knows nothing of releases and instances: it states wishes (`desired_release`, `deploy_serial`), and the leader's
controller fulfils them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, connection
from django.db.models import F, Sum
from django.db.models.functions import Coalesce

from accounts.models import Org
from apps import domains, freeze, processes, runtimes
from apps.configuration import CONFIG_FIELDS, masked, merge_env, open_env
from apps.models import App, ConfigRevision, DesiredState
from consensus.gate import Transaction
from observing import journal
from omni.kernel.errors import Conflict, FieldError, Forbidden, InvalidInput
from omni.kernel.inserts import insert, statement
from omni.kernel.seal import seal

_PLAIN_FIELDS = ("name", "description", "instances", "singleton", "runtime", "strategy", "placement", "traffic",
                 "labels", "maintenance", "freeze", "process_counts")  # fmt: skip


_RIVALS = (
    "SELECT id, org_id, name, hostname FROM apps_app WHERE org_id = %s AND name = %s "
    "UNION SELECT id, org_id, name, hostname FROM apps_app WHERE hostname IN (%s, %s)"
)


def create_app(tx: Transaction, *, org: Org, fields: dict[str, Any]) -> tuple[App, dict[str, Any]]:
    """Insert an app and its first configuration; answers it with its environment as it may be shown.

    Raises Conflict for a taken name, Forbidden for a full quota.
    """
    fields = _with_processes(None, fields)
    others = _others(None, fields)
    check_quota(org, None, fields.get("instances", 1), fields.get("memory_mb", 512), others, new_apps=1)
    given = {name: fields[name] for name in (*_PLAIN_FIELDS, *CONFIG_FIELDS) if name in fields}
    if others != (0, 0):
        given |= {"other_instances": others[0], "other_memory_mb": others[1]}
    app = _insert_named(org, created_at=tx.at, updated_at=tx.at, **given)
    env, secret_keys = merge_env({}, [], fields.get("env", {}))
    tx.before_fence.append(statement(ConfigRevision, **_revision(tx, app, 1, env, secret_keys)))
    if fields.get("domains"):
        domains.set_domains(tx, app, fields["domains"])
    tx.record("app.created", "app", app.pk, org_id=org.pk, app_id=app.pk, change={"name": app.name})
    return app, masked(env, secret_keys)


def update_app(tx: Transaction, app: App, fields: dict[str, Any]) -> tuple[set[str], ConfigRevision | None]:
    """Change fields; returns the names that changed, and the new configuration revision if running instances need it.

    The row must have been read inside this transaction. `app` is brought up to date.
    """
    _refuse_deleted(app)
    if "freeze" in fields:
        fields = {**fields, "freeze": freeze.stored(tx, app, fields["freeze"])}
    fields = _with_processes(app, fields)
    org = Org.objects.select_for_update().get(pk=app.org_id)
    changed = {
        name for name in (*_PLAIN_FIELDS, *CONFIG_FIELDS) if name in fields and fields[name] != getattr(app, name)
    }
    values = {name: fields[name] for name in changed}
    if changed & {"instances", "memory_mb", "process_counts", "process_settings"}:
        others = _others(app, fields)
        check_quota(org, app, fields.get("instances", app.instances), fields.get("memory_mb", app.memory_mb), others)
        values |= {"other_instances": others[0], "other_memory_mb": others[1]}
    _check_singleton(app, fields)
    if "name" in changed:
        values["hostname"] = _free_hostname(fields["name"], org, but=app)
    revision = _revise_configuration(tx, app, fields, changed)
    if revision is not None:
        values["config_number"] = revision.number
        changed.add("env") if "env" in fields else None
    if "domains" in fields and domains.set_domains(tx, app, fields["domains"]):
        changed.add("domains")
    if changed:
        before = {name: [getattr(app, name), fields[name]] for name in changed if name in values}
        _update(tx, app, **values)
        tx.record(
            "app.updated", "app", app.pk, org_id=org.pk, app_id=app.pk, change={**before, "fields": sorted(changed)}
        )
    return changed, revision


def restore_configuration(tx: Transaction, app: App, source: ConfigRevision) -> ConfigRevision:
    """Make an old configuration the current one again, as a new revision (rollback); the current one if equal."""
    _refuse_deleted(app)
    current = current_revision(app)
    if current.number == source.number:
        return current
    values = {name: getattr(source, name) for name in CONFIG_FIELDS}
    _, values["other_memory_mb"] = processes.others(app.process_counts, source.process_settings, source.memory_mb)
    for name, value in values.items():
        setattr(app, name, value)
    revision = _insert_revision(tx, app, current.number + 1, open_env(source), source.secret_keys)
    _update(tx, app, config_number=revision.number, **values)
    tx.record("app.configuration_restored", "app", app.pk, org_id=app.org_id, app_id=app.pk,
              change={"from": source.number, "to": revision.number})  # fmt: skip
    return revision


def wish(
    tx: Transaction,
    app: App,
    *,
    release_number: int | None = None,
    process_types: Iterable[str] = (),
    kind: str,
    cause: str,
) -> None:
    """Wish for a deployment: of `release_number`, which has these process types, or of what is desired anyway (scale,
    restart, start)."""
    _refuse_deleted(app)
    values: dict[str, Any] = {"deploy_kind": kind, "deploy_cause": cause[:200], "deploy_request": journal.current()}
    if release_number is not None:
        values["desired_release"] = release_number
        values["process_types"] = list(processes.runnable(process_types))
    _update(tx, app, deploy_serial=F("deploy_serial") + 1, **values)
    app.refresh_from_db(fields=["deploy_serial", "deploy_request"])
    tx.record(f"app.{kind}_wished", "app", app.pk, org_id=app.org_id, app_id=app.pk,
              change={"release": app.desired_release, "serial": app.deploy_serial})  # fmt: skip


def scale(tx: Transaction, app: App, counts: Mapping[str, int]) -> bool:
    """Change desired counts by process type, within the quota; whether any was another."""
    patch = {name: {"instances": count} for name, count in counts.items()}
    return bool(update_app(tx, app, {"processes": patch})[0])


def set_desired_state(tx: Transaction, app: App, state: DesiredState) -> bool:
    """running, stopped or deleted; False when it was that already. Deleted is for good."""
    if app.desired_state == state:
        return False
    _refuse_deleted(app)
    before = app.desired_state
    extra = {"status": "deleting"} if state == DesiredState.DELETED else {}
    _update(tx, app, desired_state=state, **extra)
    tx.record("app.desired_state_changed", "app", app.pk, org_id=app.org_id, app_id=app.pk,
              change={"desired_state": [before, str(state)]})  # fmt: skip
    return True


def set_status(tx: Transaction, app: App, status: str) -> None:
    """What the controller observes; the only writer of `status` but for `deleting`."""
    if app.status != status:
        before = app.status
        _update(tx, app, status=status)
        tx.record("app.status_changed", "app", app.pk, org_id=app.org_id, app_id=app.pk,
                  change={"status": [before, status]})  # fmt: skip


def current_revision(app: App) -> ConfigRevision:
    return ConfigRevision.objects.get(app=app, number=app.config_number)


def _update(tx: Transaction, app: App, **values: Any) -> None:
    """Conditional on the revision that was read: a change in between is a conflict, never overwritten."""
    updated = App.objects.filter(pk=app.pk, revision=app.revision).update(
        revision=F("revision") + 1, updated_at=tx.at, **values
    )
    if updated != 1:
        raise Conflict("The app was changed at the same time.", next="repeat the request")
    app.revision += 1
    app.updated_at = tx.at
    for name, value in values.items():
        if not hasattr(value, "resolve_expression"):
            setattr(app, name, value)


def _revise_configuration(
    tx: Transaction, app: App, fields: dict[str, Any], changed: set[str]
) -> ConfigRevision | None:
    """A new revision if anything that shapes an instance differs."""
    current = current_revision(app)
    old_env = open_env(current)
    env, secret_keys = merge_env(old_env, current.secret_keys, fields.get("env", {}))
    if not changed & set(CONFIG_FIELDS) and env == old_env and secret_keys == current.secret_keys:
        return None
    shaped = {name: fields.get(name, getattr(app, name)) for name in CONFIG_FIELDS}
    return _insert_revision(tx, app, current.number + 1, env, secret_keys, shaped)


def _insert_revision(
    tx: Transaction,
    app: App,
    number: int,
    env: dict[str, str],
    secret_keys: list[str],
    shaped: dict[str, Any] | None = None,
) -> ConfigRevision:
    return insert(ConfigRevision, **_revision(tx, app, number, env, secret_keys, shaped))


def _revision(
    tx: Transaction,
    app: App,
    number: int,
    env: dict[str, str],
    secret_keys: list[str],
    shaped: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The columns of a configuration; `shaped` differs from the app's own while those are being changed."""
    return {
        "app_id": app.pk,
        "number": number,
        "env": seal(env),
        "secret_keys": secret_keys,
        "created_at": tx.at,
        "created_by": tx.actor.label,
        **(shaped or {name: getattr(app, name) for name in CONFIG_FIELDS}),
    }


def _insert_named(org: Org, *, name: str, **given: Any) -> App:
    """Insert an app under `<app>`, else under `<app>-<org>`. Raises Conflict.

    The database's constraints decide; who stands in the way is asked only when somebody does.
    """
    try:
        app = insert(App, org_id=org.pk, name=name, hostname=name, **given)
    except IntegrityError:
        app = insert(App, org_id=org.pk, name=name, hostname=_free_hostname(name, org), **given)
    app.org = org
    return app


def _free_hostname(name: str, org: Org, but: App | None = None) -> str:
    """`<app>`, else `<app>-<org>` (DECISIONS 28). Raises Conflict when the name or both host names are taken."""
    candidates = (name, f"{name}-{org.name}")
    taken = set()
    with connection.cursor() as cursor:  # three index look-ups; the ORM would take longer to compose than to ask
        cursor.execute(_RIVALS, [org.pk, name, *candidates])
        for rival_id, rival_org, rival, hostname in cursor.fetchall():
            if but is not None and rival_id == but.pk:
                continue
            if (rival_org, rival) == (org.pk, name):
                raise _taken("app_exists", f"The org {org.name} has an app named {name} already.", "/name")
            taken.add(hostname)
    for candidate in candidates:
        if candidate not in taken and len(candidate) <= 63:
            return candidate
    raise _taken("hostname_taken", f"The host names {' and '.join(candidates)} are taken on this platform.", "/name")


def _with_processes(app: App | None, fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with the patch `processes` resolved into columns. Raises InvalidInput."""
    if "processes" not in fields:
        return fields
    counts, settings = (app.process_counts, app.process_settings) if app is not None else ({}, {})
    after = processes.patched(counts, settings, fields["processes"])
    rest = {name: value for name, value in fields.items() if name != "processes"}
    types = app.process_types if app is not None else None
    unknown = sorted(name for name in after.named if types is not None and name not in types)
    problems = [
        FieldError(f"/processes/{name}", "no_such_process", f"The release has {', '.join(types or ())}, not {name}.")
        for name in unknown
    ]
    problems += [
        FieldError(f"/processes/web/{name}", "given_twice", f"{name} is said twice, and differently.")
        for name, value in after.web.items()
        if name in rest and rest[name] != value
    ]
    if problems:
        raise InvalidInput(errors=problems)
    return {**rest, **after.web, "process_counts": after.counts, "process_settings": after.settings}


def _others(app: App | None, fields: dict[str, Any]) -> tuple[int, int]:
    """(instances, megabytes) of the types beside web, once `fields` are set."""
    counts, settings, memory_mb = (app.process_counts, app.process_settings, app.memory_mb) if app else ({}, {}, 512)
    return processes.others(
        fields.get("process_counts", counts), fields.get("process_settings", settings),
        fields.get("memory_mb", memory_mb),
    )  # fmt: skip


def set_volume_node(tx: Transaction, app: App, node: str) -> None:
    """Where the app's volumes are from now on; empty: it has none any more. With volumes an app is a singleton: what
    keeps data must not run twice on it. Raises InvalidInput when more than one instance of a type is wanted."""
    _refuse_deleted(app)
    if node:
        _check_singleton(app, {"singleton": True})
    values = {"volume_node": node, **({"singleton": True} if node else {})}
    changed = {name: [getattr(app, name), value] for name, value in values.items() if getattr(app, name) != value}
    if changed:
        _update(tx, app, **values)
        tx.record("app.updated", "app", app.pk, org_id=app.org_id, app_id=app.pk,
                  change={**changed, "fields": sorted(changed)})  # fmt: skip


def outdate_plans(tx: Transaction, app: App) -> None:
    """What was planned for the app before this moment is planned anew."""
    _update(tx, app)


def _check_singleton(app: App, fields: dict[str, Any]) -> None:
    """At most one instance of each type."""
    if app.volume_node and fields.get("singleton") is False:
        raise Conflict(
            "An app with a volume is a singleton: it must not run twice on its data.", code="app_has_volumes",
            next=f"GET /app/{app.pk}/volumes",
        )  # fmt: skip
    if not fields.get("singleton", app.singleton):
        return
    if fields.get("runtime", app.runtime) == runtimes.SWARM:
        said = "A swarm may run it twice while it moves; a singleton (also by its volume) runs on docker or process."
        raise InvalidInput(errors=[FieldError("/runtime", "swarm_has_no_singletons", said)])
    counts = {"web": fields.get("instances", app.instances), **fields.get("process_counts", app.process_counts)}
    for name, count in counts.items():
        if count > 1:
            pointer = "/instances" if name == processes.WEB else f"/processes/{name}/instances"
            said = "A singleton app has at most one instance of each process type."
            raise InvalidInput(errors=[FieldError(pointer, "singleton", said)])


def check_quota(
    org: Org, app: App | None, instances: int, memory_mb: int, other: tuple[int, int], *, new_apps: int = 0
) -> None:
    if org.max_apps is None and org.max_instances is None and org.max_memory_mb is None:
        return  # no limit, no lock: creations of one org run beside each other
    org = Org.objects.select_for_update().get(pk=org.pk)
    others = App.objects.filter(org=org).exclude(pk=app.pk if app else 0).exclude(desired_state=DesiredState.DELETED)
    sums = others.aggregate(
        total=Coalesce(Sum(F("instances") + F("other_instances")), 0),
        memory=Coalesce(Sum(F("instances") * F("memory_mb") + F("other_memory_mb")), 0),
    )
    wanted = [
        ("apps", others.count() + new_apps, org.max_apps if new_apps else None),
        ("instances", sums["total"] + instances + other[0], org.max_instances),
        ("memory_mb", sums["memory"] + instances * memory_mb + other[1], org.max_memory_mb),
    ]
    for noun, value, limit in wanted:
        if limit is not None and value > limit:
            raise Forbidden(
                f"The org {org.name} may have {limit} {noun}; this would make {value}.",
                code="quota_exceeded",
                next=f"GET /orgs/{org.name}/quota",
            )


def _refuse_deleted(app: App) -> None:
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")


def _taken(code: str, detail: str, pointer: str) -> Conflict:
    return Conflict(detail, code=code, errors=[FieldError(pointer, code, detail)])
