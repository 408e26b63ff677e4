"""TLS between members: one member's identity in use, for Raft and for HTTP alike.

Owns the contexts (TLS 1.3, both sides prove themselves, certificates of this cluster's authority only) and who is at
the other end. Imports nothing heavy: the Raft process holds it for ever. Making an identity is `identity`'s business.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMBER_URN = "urn:omni:member:"


@dataclass(frozen=True, slots=True)
class Identity:
    """One member's certificate, its key, and the authority that every other member's certificate must come from."""

    member: str
    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def write(self, folder: Path) -> tuple[Path, Path, Path]:
        """(authority, certificate, key) as files for a server that wants paths; the key is its owner's only."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        contents = (
            ("authority.pem", self.authority_pem),
            ("member.pem", self.certificate_pem),
            ("member.key", self.key_pem),
        )
        paths = []
        for name, content in contents:
            path = folder / name
            temporary = path.with_name(f".{name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
            temporary.replace(path)
            paths.append(path)
        return paths[0], paths[1], paths[2]


def server_context(identity: Identity) -> ssl.SSLContext:
    """For a listener: nobody gets past the handshake without a certificate of this cluster."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0  # a resumed session would save nothing and could be replayed
    return context


def client_context(identity: Identity) -> ssl.SSLContext:
    """For a connection to another member. Check `member_of` afterwards: the certificate names a member, not a host."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.check_hostname = False
    return context


def member_of(connection: ssl.SSLSocket | ssl.SSLObject) -> str | None:
    """The member at the other end of a connection whose handshake is done; None: no certificate of ours."""
    certificate = connection.getpeercert()
    return member_in(dict(certificate)) if certificate else None


def member_in(certificate: dict[str, Any]) -> str | None:
    """The same from a certificate as `SSLSocket.getpeercert` shows it."""
    for kind, value in certificate.get("subjectAltName", ()):
        if kind == "URI" and str(value).startswith(MEMBER_URN):
            return str(value)[len(MEMBER_URN) :]
    return None


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=identity.authority_pem.decode())
    with _file(identity.certificate_pem + identity.key_pem) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """`ssl` loads certificates from paths only: memory that looks like a file, else a file of the owner's only."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("omni-identity", os.MFD_CLOEXEC)
        try:
            os.write(fd, content)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    fd, path = tempfile.mkstemp()  # mode 0600
    try:
        os.write(fd, content)
        os.close(fd)
        yield path
    finally:
        Path(path).unlink(missing_ok=True)
