"""Which port an instance listens on.

Owns the choice within this node's range; a port is good when nobody holds it at the moment, tested by binding.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Container


class NoPort(Exception):
    """Every port of the range is taken."""


def free(address: str, port: int) -> bool:
    """Whether a server could listen there now, on this address and on every address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    everywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 (bound for an instant, never listens)
    for host in {address, everywhere}:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((host, port))
            except OSError:
                return False
    return True


class Ports:
    """Hands out ports in turn, so that one just given back is not at once another instance's."""

    def __init__(self, address: str, low: int, high: int, is_free: Callable[[str, int], bool] = free) -> None:
        self._address = address
        self._low, self._high = low, high
        self._next = low
        self._is_free = is_free

    def choose(self, taken: Container[int], kept: int | None = None) -> int:
        """`kept`, the port of the instance's last process, when it is still good; else the next good one."""
        if kept is not None and self._low <= kept <= self._high and self._is_free(self._address, kept):
            return kept
        size = self._high - self._low + 1
        for offset in range(size):
            port = self._low + (self._next - self._low + offset) % size
            if port not in taken and self._is_free(self._address, port):
                self._next = port + 1 if port < self._high else self._low
                return port
        raise NoPort(f"no free port between {self._low} and {self._high}")
