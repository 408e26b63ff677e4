"""How an org is known to private registries: stored sealed, shown never, given to the worker that builds for it."""

from __future__ import annotations

from typing import Any

from django.db.models import F

from accounts.models import Org
from consensus.gate import Transaction
from omni.kernel.seal import seal, unseal
from releases.contract import IMAGE_RUNTIMES
from releases.models import Build, RegistryCredential


def store_registry(tx: Transaction, *, org: Org, registry: str, username: str, password: str) -> RegistryCredential:
    """One a registry: a second one replaces the first."""
    values = {"username": username, "password": seal(password), "created_by": tx.actor.label, "created_at": tx.at}
    found = RegistryCredential.objects.select_for_update().filter(org=org, registry=registry).first()
    if found is None:
        found = RegistryCredential.objects.create(org=org, registry=registry, **values)
    else:
        RegistryCredential.objects.filter(pk=found.pk).update(revision=F("revision") + 1, **values)
        found.refresh_from_db()
    tx.record("registry.stored", "registry", found.pk, org_id=org.pk, change={"registry": registry})
    return found


def remove_registry(tx: Transaction, *, credential: RegistryCredential) -> None:
    tx.record(
        "registry.removed",
        "registry",
        credential.pk,
        org_id=credential.org_id,
        change={"registry": credential.registry},
    )
    RegistryCredential.objects.filter(pk=credential.pk).delete()


def registry_logins(build: Build) -> list[dict[str, Any]]:
    """What a worker needs for this build, in clear. Only for builds that can use it."""
    if build.app.runtime not in IMAGE_RUNTIMES:
        return []
    found = RegistryCredential.objects.filter(org_id=build.app.org_id).order_by("registry")
    return [{"registry": row.registry, "username": row.username, "password": unseal(row.password)} for row in found]
