"""What proves this process to members of other hosts, and them to it: files that the launcher wrote.

Owns the TLS context of every call to another host. Certificates come from the cluster's own authority; nothing that
the system trusts counts here.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class BadTls(Exception):
    """The files cannot be used; the message names the folder."""


def context(folder: str | None) -> ssl.SSLContext | None:
    """The context that `folder` (authority.pem, member.pem, member.key) describes; None without one. Raises BadTls."""
    if not folder:
        return None
    files = Path(folder)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and the address in it
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        made.load_verify_locations(cafile=str(files / "authority.pem"))
        made.load_cert_chain(str(files / "member.pem"), str(files / "member.key"))
    except OSError as error:
        raise BadTls(f"{folder}: {error}") from error
    return made
