"""One message by SMTP, under the address policy and the clock.

Owns the talk with the mail server: STARTTLS where wanted, TLS from the start on port 465, log-in when credentials are
configured. Keeps nothing.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate

from omni.outgoing import policy as policies
from sandbox.addresses import AddressPolicy, Refused

TIMEOUT_S = 15.0
_IMPLICIT_TLS_PORT = 465


class MailFailed(Exception):
    """It was not taken. `final`: the server refused it for good, or the policy forbids the server."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    user: str = ""
    password: str = ""
    security: str = "starttls"  # starttls | tls | none


@dataclass(frozen=True, slots=True)
class Mail:
    """`id` becomes the Message-ID, the same with every try."""

    id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    text: str


def send(server: Server, mail: Mail, *, policy: AddressPolicy | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Hand the mail to the server. Raises MailFailed."""
    try:
        address = (policy or policies.configured()).first_allowed(
            server.host, policies.resolve(server.host, server.port, timeout_s)
        )
    except policies.Unresolved as error:
        raise MailFailed(str(error)) from error
    except Refused as error:
        raise MailFailed(str(error), final=True) from error
    begun = time.monotonic()
    try:
        with _Pinned(server, address, timeout_s) as talk:
            if server.security == "starttls":
                talk.starttls(context=ssl.create_default_context())
            if server.user:
                talk.login(server.user, server.password)
            talk.send_message(_message(mail))
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        raise MailFailed(f"{error.smtp_code} {text}"[:200], final=500 <= error.smtp_code < 600) from error
    except smtplib.SMTPRecipientsRefused as error:
        raise MailFailed(f"refused: {', '.join(sorted(error.recipients))}"[:200], final=True) from error
    except (smtplib.SMTPException, OSError, ValueError) as error:
        took = time.monotonic() - begun
        raise MailFailed(f"{error or type(error).__name__} (after {took:.1f} s)"[:200]) from error


class _Pinned(smtplib.SMTP):
    """Connects to `address`; certificates are checked against the name."""

    def __init__(self, server: Server, address: str, timeout_s: float) -> None:
        self._address, self._tls = address, server.security == "tls" or server.port == _IMPLICIT_TLS_PORT
        super().__init__(server.host, server.port, timeout=timeout_s)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = socket.create_connection((self._address, port), timeout)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if self._tls else plain


def _message(mail: Mail) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = mail.sender, ", ".join(mail.to)
    message["Subject"] = " ".join(mail.subject.split())
    message["Date"] = formatdate(usegmt=True)
    message["Message-ID"] = f"<{mail.id}@omni>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message
