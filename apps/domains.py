"""Custom domains: unique on the platform, never under its own domain; kept, but not served before they are proven.

The proof by a TXT record is not built yet, so that for now no custom domain is routed.
"""

from __future__ import annotations

from django.conf import settings

from apps.models import App, Domain
from consensus.gate import Transaction
from omni.kernel.errors import Conflict, FieldError, InvalidInput


def set_domains(tx: Transaction, app: App, names: list[str]) -> bool:
    """Make `names` the app's custom domains; True if that changed anything."""
    before = {domain.name: domain for domain in Domain.objects.filter(app=app)} if app.pk else {}
    wanted = set(names)
    if wanted == set(before):
        return False
    own = settings.CONFIG.domain
    for name in sorted(wanted - set(before)):
        if name == own or name.endswith(f".{own}"):
            detail = f"{name} lies under the platform's own domain {own}."
            raise InvalidInput(errors=[FieldError("/domains", "platform_domain", detail)])
        if Domain.objects.filter(name=name).exists():
            raise Conflict(f"The domain {name} belongs to another app.", code="domain_taken")
        Domain(app=app, name=name, created_at=tx.at).save(force_insert=True)
    Domain.objects.filter(app=app, name__in=set(before) - wanted).delete()
    App.objects.filter(pk=app.pk).update(domains=sorted(wanted))
    app.domains = sorted(wanted)
    return True
