"""How the other processes of a member speak to its Raft process: newline JSON over a unix socket.

Owns the client's half of the socket's protocol (`server` has the other) and the difference between *it did not happen*
(ConsensusUnavailable, CommandRefused) and *nobody knows* (CommandUnknown). Safe to share between threads. Must not
retry a command by itself: the caller knows whether it may be repeated (every command of `machine` may).
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any

from consensus.lease import ConsensusUnavailable

_CONNECT_S = 1.0
_MARGIN_S = 1.0  # the process answers within the caller's time-out; this is for the way back
LINE_MAX = 4 << 20


class CommandUnknown(Exception):
    """The command may have been applied, or may still be: ask `status`, or repeat it."""


class CommandRefused(Exception):
    """The Raft process or its leader said no, and nothing happened. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RaftClient:
    """`socket_path` is `config.socket_path(f"raft-{port}")`. Connects when first used, and again after a failure."""

    def __init__(self, socket_path: str) -> None:
        self._ask = _Line(socket_path)
        self._beat = _Line(socket_path)  # a heartbeat must not wait behind a slow command

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        """{member, role, term, leader, established, commit_index, applied_index, quorum, members, state}."""
        return self._ask.call("status", {}, timeout_s, changes=False)

    def submit(self, command: dict[str, Any], timeout_s: float = 3.0) -> dict[str, Any]:
        """Replicate `{"op": …, "v": 1, …}` through whichever member leads; the machine's reply once it is applied.

        Raises ConsensusUnavailable (not applied), CommandRefused (no command at all), CommandUnknown. A machine's own
        *no* is a reply: `{"ok": False, "code": …}`.
        """
        return self._ask.call("submit", {"command": command, "timeout_s": timeout_s}, timeout_s, changes=True)

    def add_member(self, id: str, address: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """Let `id` vote; `address` is `"<host>:<Raft port>"`. Repeating it is harmless."""
        return self._ask.call(
            "add", {"member": id, "address": address, "timeout_s": timeout_s}, timeout_s, changes=True
        )

    def remove_member(self, id: str, timeout_s: float = 5.0) -> dict[str, Any]:
        """Take `id` out; a leader that is to go hands its leadership over first. Repeating it is harmless."""
        return self._ask.call("remove", {"member": id, "timeout_s": timeout_s}, timeout_s, changes=True)

    def transfer(self, to: str | None = None, timeout_s: float = 3.0) -> str:
        """Hand the leadership to `to` (a member id; None: whoever is fit); the new leader's `"<host>:<HTTP port>"`."""
        reply = self._ask.call("transfer", {"to": to, "timeout_s": timeout_s}, timeout_s, changes=True)
        return str(reply["leader"])

    def announce(self, able: bool) -> None:
        """The daemon's heartbeat, every 0.25 s: whether this member could do a leader's work."""
        self._beat.call("announce", {"able": able}, 1.0, changes=False)

    def fault(self, **fault: Any) -> dict[str, Any]:
        """Tests only (the process refuses it unless OMNI_TEST_RAFT_FAULTS is set): `drop=[member ids]`."""
        return self._ask.call("fault", fault, 2.0, changes=False)

    def close(self) -> None:
        self._ask.close()
        self._beat.close()


class _Line:
    """One connection, one request at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._buffer = b""
        self._number = 0

    def call(self, op: str, arguments: dict[str, Any], timeout_s: float, *, changes: bool) -> dict[str, Any]:
        if not self._lock.acquire(timeout=timeout_s + _MARGIN_S):
            raise ConsensusUnavailable("the connection to the Raft process is busy with another request")
        try:
            return self._call(op, arguments, timeout_s, changes=changes)
        finally:
            self._lock.release()

    def _call(self, op: str, arguments: dict[str, Any], timeout_s: float, *, changes: bool) -> dict[str, Any]:
        self._number += 1
        request = json.dumps({"id": self._number, "op": op, **arguments}).encode() + b"\n"
        self._send(request, timeout_s + _MARGIN_S)
        try:
            reply = json.loads(self._read_line())
            if not isinstance(reply, dict) or reply.get("id") != self._number:
                raise ValueError("an answer to another question")
        except (OSError, ValueError) as error:
            self._drop()
            if changes:
                raise CommandUnknown(f"the Raft process did not answer to {op}: {error}") from error
            raise ConsensusUnavailable(f"the Raft process did not answer to {op}: {error}") from error
        if reply.get("ok") is True:
            result: dict[str, Any] = reply.get("result") or {}
            return result
        code, message = str(reply.get("error")), str(reply.get("message"))
        if code == "unknown":
            raise CommandUnknown(message)
        if code == "unavailable":
            raise ConsensusUnavailable(message)
        raise CommandRefused(code, message)

    def _send(self, request: bytes, timeout_s: float) -> None:
        """On the open connection, else on a new one; nothing is done twice, for a broken one delivered nothing."""
        for fresh in (False, True):
            try:
                if self._socket is None or fresh:
                    self._connect()
                assert self._socket is not None  # noqa: S101 - for the type checker
                self._socket.settimeout(timeout_s)
                self._socket.sendall(request)
                return
            except OSError as error:
                self._drop()
                if fresh:
                    raise ConsensusUnavailable(f"the Raft process of this member is not running: {error}") from error

    def _connect(self) -> None:
        self._drop()
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(_CONNECT_S)
            opened.connect(self._path)
        except OSError:
            opened.close()
            raise
        self._socket, self._buffer = opened, b""

    def _read_line(self) -> bytes:
        assert self._socket is not None  # noqa: S101 - for the type checker
        while b"\n" not in self._buffer:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("it closed the connection")
            self._buffer += received
            if len(self._buffer) > LINE_MAX:
                raise ValueError("the answer is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._buffer = None, b""

    def close(self) -> None:
        with self._lock:
            self._drop()
