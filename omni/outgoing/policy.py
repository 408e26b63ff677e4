"""The address policy of this platform, from the configuration.

Owns name resolution under a time limit. What is allowed is `sandbox.addresses`' rule.
"""

from __future__ import annotations

import socket
import threading

from omni.kernel.config_checks import networks
from sandbox.addresses import AddressPolicy


class Unresolved(Exception):
    """The name has no address, or the resolver gave none in time."""


def configured() -> AddressPolicy:
    from django.conf import settings

    outgoing = settings.CONFIG.outgoing
    return AddressPolicy.of(networks(outgoing.allow), networks(outgoing.deny))


def resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """The host's addresses in the resolver's order, asked once. Raises Unresolved.

    The system's resolver knows no time limit, so it is asked in a thread that is left behind when it hangs.
    """
    found: list[str] = []
    problem: list[str] = []

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            problem.append(str(getattr(error, "strerror", "") or error))
        else:
            found.extend(dict.fromkeys(str(row[4][0]) for row in rows))

    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise Unresolved(f"{host}: the resolver gave no answer within {timeout_s:g} s")
    if problem:
        raise Unresolved(f"{host}: {problem[0]}")
    return found
