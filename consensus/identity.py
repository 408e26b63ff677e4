"""Who is who between members: certificates that follow from the cluster secret.

Owns the cluster's certificate authority (an Ed25519 key derived from the cluster secret, the same on every member,
stored nowhere) and each member's own certificate (a new key at every start, the member's id in it). Whoever holds the
cluster secret can be any member; whoever does not is nobody. Validity has no end, so that a wrong clock locks no member
out. What the certificates are used with is `tls`, whose names are here too. Must not import Django.
"""

from __future__ import annotations

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from consensus.tls import MEMBER_URN, Identity, client_context, member_in, member_of, server_context
from omni.kernel import keys
from omni.kernel.config import Config

__all__ = ["Identity", "NoClusterSecret", "client_context", "make", "member_in", "member_of", "of", "server_context"]

_FROM = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)  # RFC 5280: no well-defined end


class NoClusterSecret(Exception):
    """Without the secret nobody could be told from a stranger: no port is opened, no connection made."""


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
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(MEMBER_URN + member)]
    if address:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names
