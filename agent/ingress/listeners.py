"""The public listening sockets: made and kept here, handed to Caddy by number, so that they outlive what serves them.

A request is lost in two ways when the server behind a port changes. What the kernel has queued for a listening socket
is reset when that socket closes, and Caddy binds a new one (SO_REUSEPORT) with every configuration. And a server of Go
that is shutting down closes a fresh connection whose request it has just read, without an answer (golang/go#75591).

So each address has two sockets, its *sides*: a new configuration, or a new Caddy, listens on the side that is at rest;
when it does, the kernel gives it all new connections (`steer`), and the one before has its `shutdown_delay` to read and
answer what it has accepted. No socket closes, and none has anything in it that nobody will accept.

Owns the sockets; when to change sides is `caddy_process`' business. Where the kernel cannot steer (not Linux), there is
one side only: nothing is reset, but a configuration that ends may close a connection that has just come.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

BACKLOG = 4096
_ATTACH_REUSEPORT_CBPF = 51
_PIDFD_GETFD = 438  # the same on every architecture
_RETURN = 0x06  # BPF_RET | BPF_K


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


@dataclass(slots=True)
class Listeners:
    """`sockets[address]` are both sides of it. `steered`: the kernel sends new connections to one side alone."""

    sockets: dict[str, tuple[socket.socket, socket.socket]]
    steered: bool = False

    @classmethod
    def open(cls, addresses: Iterable[str], *, shared: bool = False) -> Listeners:
        """Bind both sides of each address, the first one listening.

        Raises OSError when somebody else listens there, unless `shared`: then the kernel divides new connections until
        the other one is gone, and only then `steer` may be called.
        """
        made = cls({}, steered=False)
        try:
            for address in addresses:
                made.add(address, shared=shared)
        except OSError:
            made.close()
            raise
        if not shared:
            made.steer(0)
        return made

    def add(self, address: str, *, shared: bool = False) -> None:
        if not shared:
            _bound(address, alone=True).close()
        self.sockets[address] = (_bound(address), _bound(address))
        self.sockets[address][0].listen(BACKLOG)

    def become(self, addresses: Iterable[str], side: int) -> None:
        """Other addresses: those that are known stay as they are. Raises OSError when one is taken."""
        wanted = list(addresses)
        for address in wanted:
            if address not in self.sockets:
                self.add(address)
                self._attach(self.sockets[address], 0)
        if side:
            self.listen(side)
        for address in set(self.sockets) - set(wanted):
            _close(self.sockets.pop(address))
        self.steer(side)

    @classmethod
    def of(cls, pid: int, numbers: Mapping[str, list[int]]) -> Listeners | None:
        """Those that process `pid` has under `numbers`; None where the system does not let us have them."""
        if not numbers:
            return None
        found: dict[str, tuple[socket.socket, socket.socket]] = {}
        try:
            process = os.pidfd_open(pid)
            try:
                for address, (first, second) in numbers.items():
                    found[address] = (_taken(process, first), _taken(process, second))
            finally:
                os.close(process)
        except (OSError, AttributeError, ValueError) as error:
            log.warning("the listening sockets of caddy (pid %s) cannot be taken over: %s", pid, error)
            for pair in found.values():
                _close(pair)
            return None
        return cls(found, steered=False)

    def numbers(self) -> dict[str, list[int]]:
        """The file descriptors of both sides, ours and those of a child that gets them."""
        return {address: [side.fileno() for side in pair] for address, pair in self.sockets.items()}

    def inherited(self) -> list[int]:
        return [number for pair in self.numbers().values() for number in pair]

    def other(self, side: int) -> int:
        """The side that a new configuration is to listen on; the same where the kernel cannot steer."""
        return 1 - side if self.steered else side

    def listen(self, side: int) -> None:
        """From now on connections can wait there. The first side is the first of its group: `steer` counts on it."""
        for pair in self.sockets.values():
            pair[side].listen(BACKLOG)

    def steer(self, side: int) -> None:
        """All new connections go to this side. Must have been called before the second side listens."""
        try:
            for pair in self.sockets.values():
                self._attach(pair, side)
            self.steered = True
        except OSError as error:
            self.steered = False
            log.warning("the kernel does not steer connections between sockets (%s): a reload may lose some", error)

    def _attach(self, pair: tuple[socket.socket, socket.socket], side: int) -> None:
        """A program for the whole group, by way of its first socket: the n-th that began to listen gets everything."""
        instruction = (_Instruction * 1)(_Instruction(_RETURN, 0, 0, side))
        pair[0].setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, bytes(_Program(1, instruction)))

    def refuse_waiting(self, side: int) -> None:
        """Close what waits at a side where nobody will accept it."""
        for pair in self.sockets.values():
            try:
                while True:
                    pair[side].accept()[0].close()
            except OSError:
                continue

    def held_by(self, pid: int, side: int) -> int:
        """How often the process has this side open: once as it inherited it, once more for each that listens on it."""
        wanted = [str(Path(f"/proc/self/fd/{pair[side].fileno()}").readlink()) for pair in self.sockets.values()]
        counts = dict.fromkeys(wanted, 0)
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target in counts:
                counts[target] += 1
        return min(counts.values())

    def end(self) -> None:
        """Nobody gets a connection any more, whoever else has these sockets open; open connections go on."""
        for pair in self.sockets.values():
            for side in pair:
                try:
                    side.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    if error.errno != errno.ENOTCONN:
                        log.debug("a listening socket does not end: %s", error)
        self.close()

    def close(self) -> None:
        for pair in self.sockets.values():
            _close(pair)


def _close(pair: Iterable[socket.socket]) -> None:
    for side in pair:
        side.close()


def _bound(address: str, *, alone: bool = False) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if host == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, int(port)))
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _taken(process: int, number: int) -> socket.socket:
    """A duplicate of another process's socket."""
    library = ctypes.CDLL(None, use_errno=True)
    found = library.syscall(_PIDFD_GETFD, process, number, 0)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    os.set_inheritable(found, False)
    made = socket.socket(fileno=found)
    made.setblocking(False)
    return made
