"""Who is who between members: certificates that follow from the cluster secret.

Owns the cluster's certificate authority (an Ed25519 key derived from the cluster secret, the same on every member,
stored nowhere), each member's own certificate (a new key at every start, the member's id in it) and the TLS contexts
that both Raft and HTTP between members use: TLS 1.3, both sides prove themselves. Whoever holds the cluster secret can
be any member; whoever does not is nobody. Validity has no end, so that a wrong clock locks no member out.
Must not import Django, nor know what travels through a connection.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omni.kernel import keys
from omni.kernel.config import Config

_MEMBER = "urn:omni:member:"
_FROM = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # RFC 5280: no well-defined end


class NoClusterSecret(Exception):
    """Without the secret nobody could be told from a stranger: no port is opened, no connection made."""


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


def of(config: Config) -> Identity:
    """This member's identity. Raises NoClusterSecret before the first start."""
    return make(keys.cluster_secret(config), config.me.id, config.me.address)


def make(secret: str, member: str, address: str = "") -> Identity:
    """A new certificate for `member`; `address` goes in too, for clients that check host names."""
    if not secret:
        raise NoClusterSecret("there is no cluster secret: run start.sh once, or give OMNI_CLUSTER_SECRET")
    authority_key = _authority_key(secret)
    authority = _authority(authority_key)
    key = Ed25519PrivateKey.generate()
    certificate = (
        _builder(member, authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(_names(member, address)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, None)
    )
    return Identity(
        member,
        authority.public_bytes(serialization.Encoding.PEM),
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


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
        if kind == "URI" and str(value).startswith(_MEMBER):
            return str(value)[len(_MEMBER) :]
    return None


def _authority_key(secret: str) -> Ed25519PrivateKey:
    seed = HKDF(hashes.SHA256(), 32, salt=b"omni", info=b"cluster certificate authority 1").derive(secret.encode())
    return Ed25519PrivateKey.from_private_bytes(seed)


def _authority(key: Ed25519PrivateKey) -> x509.Certificate:
    """The same bytes on every member: nothing in it is random, and Ed25519 signs without chance."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Omni cluster authority")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder("Omni cluster authority", name)
        .public_key(key.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, None)
    )


def _builder(subject: str, issuer: x509.Name) -> x509.CertificateBuilder:
    # A common name holds 64 characters; the whole id stands in the alternative names.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])])
    return (
        x509.CertificateBuilder().subject_name(name).issuer_name(issuer).not_valid_before(_FROM).not_valid_after(_UNTIL)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _names(member: str, address: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(_MEMBER + member)]
    if address:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


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
