"""Certificates from the cluster secret: members know each other, strangers and other clusters are nobody."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from consensus import identity

SECRET = "s" * 40


def meet(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[str | None, str | None]:
    """Who each side says the other one is. Raises ssl.SSLError when one of them will not have the other."""
    left, right = socket.socketpair()
    found: list[str | None] = []
    errors: list[Exception] = []

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as connection:
                found.append(identity.member_of(connection))
                connection.sendall(b"x")
        except OSError as error:
            errors.append(error)
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right) as connection:
            connection.recv(1)  # TLS 1.3 tells a client only here that it was refused
            return identity.member_of(connection), found[0]
    finally:
        right.close()
        thread.join()
        if errors:
            raise errors[0]


def test_two_members_know_each_other_by_name() -> None:
    one, other = identity.make(SECRET, "10.0.0.1-8000", "10.0.0.1"), identity.make(SECRET, "fd00::2-8000", "fd00::2")
    met = meet(identity.server_context(one), identity.client_context(other))
    assert met == ("10.0.0.1-8000", "fd00::2-8000")


def test_the_authority_is_the_same_on_every_member_and_another_with_another_secret() -> None:
    one, other = identity.make(SECRET, "a-1"), identity.make(SECRET, "b-1")
    assert one.authority_pem == other.authority_pem
    assert one.key_pem != other.key_pem
    assert identity.make(SECRET + "x", "a-1").authority_pem != one.authority_pem


def test_another_clusters_member_is_refused_by_both_sides() -> None:
    ours, theirs = identity.make(SECRET, "a-1"), identity.make("t" * 40, "a-1")
    for server, client in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ssl.SSLError):
            meet(identity.server_context(server), identity.client_context(client))


def test_a_stranger_without_a_certificate_is_refused() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        meet(identity.server_context(identity.make(SECRET, "a-1")), stranger)


def test_nothing_older_than_tls_1_3_is_spoken() -> None:
    old = identity.client_context(identity.make(SECRET, "b-1"))
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        meet(identity.server_context(identity.make(SECRET, "a-1")), old)


def test_a_member_cannot_make_certificates_for_others() -> None:
    certificate = x509.load_pem_x509_certificate(identity.make(SECRET, "a-1").certificate_pem)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_no_clock_is_too_wrong() -> None:
    mine = identity.make(SECRET, "a-1")
    for pem in (mine.authority_pem, mine.certificate_pem):
        certificate = x509.load_pem_x509_certificate(pem)
        assert certificate.not_valid_before_utc == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        assert certificate.not_valid_after_utc.year == 9999


def test_without_a_secret_there_is_no_identity() -> None:
    with pytest.raises(identity.NoClusterSecret):
        identity.make("", "a-1")


def test_files_are_the_owners_only_and_hold_no_secret_in_their_description(tmp_path: Path) -> None:
    mine = identity.make(SECRET, "a-1")
    paths = mine.write(tmp_path / "tls")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600] * 3
    assert "PRIVATE" not in repr(mine)
    assert mine.write(tmp_path / "tls") == paths
