"""HTTPS at the ingress: which certificates Caddy gets, and for whom. Pure.

Owns the choice of issuer. A certificate is had when the first client asks for a name, and only for names that stand in
the route table (custom domains stand there once they are proven): no list of domains means no reload.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.ingress.pages import ASK_CERTIFICATE

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Https:
    """`issuer` internal: Caddy's own authority, for hosts that are not public. acme: a public one, and where it does
    not give a certificate (a name that is not public) the internal one. `acme_directory` empty: Let's Encrypt."""

    port: int
    issuer: str = "internal"
    acme_email: str = ""
    acme_directory: str = ""


def server(listen: str) -> JSON:
    """What the secure listener has besides what all listeners have. No redirect: both ports serve."""
    return {"listen": [listen], "protocols": ["h1", "h2"], "tls_connection_policies": [{}]}


def tls_apps(https: Https, page_port: int) -> JSON:
    """Caddy's `tls` and `pki` apps."""
    ask = f"http://127.0.0.1:{page_port}{ASK_CERTIFICATE}"
    return {
        "tls": {
            "automation": {
                "policies": [{"on_demand": True, "issuers": _issuers(https)}],
                "on_demand": {"permission": {"module": "http", "endpoint": ask}},
            }
        },
        # The host's own trust store is not ours to change.
        "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
    }


def _issuers(https: Https) -> list[JSON]:
    internal: JSON = {"module": "internal"}
    if https.issuer != "acme":
        return [internal]
    acme: JSON = {"module": "acme"}
    if https.acme_email:
        acme["email"] = https.acme_email
    if https.acme_directory:
        acme["ca"] = https.acme_directory
    return [acme, internal]
