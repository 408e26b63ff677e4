"""Custom domains: unique on the platform, never under its own domain, served once a TXT record has proven them.

Owns the rows and the verbs. A claim that nobody has proven for long gives way to another app's. What proves a domain is
`domain_proof`'s, asking the DNS `domain_lookup`'s, the leader's rounds are `domain_checks`' business.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db.models import F

from apps import domain_proof
from apps.domain_proof import Finding, Proof
from apps.models import App, Domain
from consensus.gate import Transaction
from omni.kernel import keys
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Conflict, FieldError, InvalidInput


def set_domains(tx: Transaction, app: App, names: list[str]) -> bool:
    """Make `names` the app's custom domains; True if that changed anything."""
    before = {domain.name: domain for domain in Domain.objects.filter(app=app)} if app.pk else {}
    wanted = set(names)
    if wanted == set(before):
        return False
    for name in sorted(wanted - set(before)):
        _check(name)
        _claim(tx, name)
        Domain(app=app, name=name, created_at=tx.at).save(force_insert=True)
    Domain.objects.filter(app=app, name__in=set(before) - wanted).delete()
    app.domains = sorted(wanted)
    app.served_domains = [name for name in app.served_domains or () if name in wanted]
    App.objects.filter(pk=app.pk).update(domains=app.domains, served_domains=app.served_domains)
    return True


def record_of(app_id: int, name: str) -> dict[str, str]:
    """The record that proves the domain, as its owner has to set it."""
    value = domain_proof.record_value(_proof_key(), app_id, name)
    return {"type": "TXT", "name": domain_proof.record_name(name), "value": value}


def details(app: App) -> list[dict[str, Any]]:
    """The app's custom domains as the API shows them. No query without domains."""
    if not app.domains:
        return []
    grace = _grace()
    return [
        {
            "name": row.name,
            "status": "pending" if row.verified_at is None else "verified",
            "record": record_of(app.pk, row.name),
            "verified_at": rfc3339(row.verified_at),
            "problem": row.problem or None,
            "failing_since": rfc3339(row.failing_since),
            "served_until": rfc3339(row.failing_since + grace) if row.failing_since else None,
        }
        for row in Domain.objects.filter(app=app).order_by("name")
    ]


def take_findings(tx: Transaction, findings: Mapping[int, Finding]) -> None:
    """Write down what the DNS said of these domains, as far as it changes anything."""
    ids = Domain.objects.filter(pk__in=findings).values_list("app_id", flat=True)
    held = {app.pk: app for app in App.objects.select_for_update().filter(pk__in=list(ids)).order_by("pk")}
    for row in Domain.objects.select_for_update().filter(pk__in=findings, app__in=held).order_by("pk"):
        proof, change = domain_proof.after(proof_of(row), findings[row.pk], tx.at, _grace())
        if change is None:
            continue
        Domain.objects.filter(pk=row.pk).update(
            verified_at=proof.verified_at, failing_since=proof.failing_since, problem=proof.problem
        )
        _show_in_app(tx, row.app_id)
        tx.record(change, "domain", row.pk, org_id=held[row.app_id].org_id, app_id=row.app_id,
                  change={"name": row.name, **({"problem": proof.problem} if proof.problem else {})})  # fmt: skip


def changes_anything(row: Domain, finding: Finding, now: dt.datetime) -> bool:
    return domain_proof.after(proof_of(row), finding, now, _grace())[1] is not None


def proof_of(row: Domain) -> Proof:
    return Proof(row.verified_at, row.failing_since, row.problem)


def _check(name: str) -> None:
    own = settings.CONFIG.domain
    if name == own or name.endswith(f".{own}"):
        detail = f"{name} lies under the platform's own domain {own}."
        raise InvalidInput(errors=[FieldError("/domains", "platform_domain", detail)])
    if len(name) > domain_proof.LONGEST_NAME:
        detail = f"A domain may have {domain_proof.LONGEST_NAME} characters, so that its record's name fits."
        raise InvalidInput(errors=[FieldError("/domains", "too_long", detail)])


def _claim(tx: Transaction, name: str) -> None:
    """Nobody else has it, or nobody has proven it for long: then it is taken from them. Raises Conflict."""
    rival = Domain.objects.select_for_update().select_related("app").filter(name=name).first()
    if rival is None:
        return
    lapses = rival.created_at + dt.timedelta(seconds=settings.CONFIG.domains.claim_s)
    if rival.verified_at is not None:
        raise Conflict(f"The domain {name} belongs to another app.", code="domain_taken")
    if tx.at < lapses:
        detail = (
            f"The domain {name} is claimed by another app; the claim lapses if it is not proven by {rfc3339(lapses)}."
        )
        raise Conflict(detail, code="domain_taken")
    rival.delete()
    _show_in_app(tx, rival.app_id)
    tx.record("domain.claim_lapsed", "domain", 0, org_id=rival.app.org_id, app_id=rival.app_id, change={"name": name})


def _show_in_app(tx: Transaction, app_id: int) -> None:
    """The app's row says which domains it has and which are served; its revision moves, so that watchers wake."""
    rows = Domain.objects.filter(app_id=app_id).order_by("name").values_list("name", "verified_at")
    App.objects.filter(pk=app_id).update(
        domains=[name for name, _ in rows],
        served_domains=[name for name, verified_at in rows if verified_at is not None],
        revision=F("revision") + 1,
        updated_at=tx.at,
    )


def _grace() -> dt.timedelta:
    return dt.timedelta(seconds=settings.CONFIG.domains.grace_s)


@lru_cache(maxsize=1)
def _proof_key() -> bytes:
    return keys.derive(keys.cluster_secret(settings.CONFIG), "domain-proof")
