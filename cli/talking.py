"""Input and output of this process to a WebSocket and back: the terminal's side of `omni exec`.

Owns the terminal's raw mode, which is given back whatever happens. docs/processes.md has the messages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_BLOCK = 32 * 1024
_OPEN_S = 10.0
_MESSAGE_BYTES = 1 << 20


def size() -> tuple[int, int]:
    """(columns, rows) of this terminal."""
    found = shutil.get_terminal_size()
    return found.columns, found.lines


def talk(base: str, path: str, tty: bool) -> dict[str, Any]:
    """Until the command's end; the last message. Raises CommandError when nobody answers."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    url = f"ws{base.removeprefix('http')}{path}"
    try:
        connection = connect(url, open_timeout=_OPEN_S, close_timeout=2, max_size=_MESSAGE_BYTES, compression=None,
                             ping_timeout=60, proxy=None)  # fmt: skip
    except (OSError, TimeoutError, WebSocketException) as error:
        raise CommandError(f"the session cannot be opened: {error}") from error
    with connection, _raw(tty), _resizes(connection, tty):
        threading.Thread(target=_inward, args=(connection,), daemon=True).start()
        return _outward(connection)


def _outward(connection: ClientConnection) -> dict[str, Any]:
    from websockets.exceptions import WebSocketException

    last: dict[str, Any] = {}
    with contextlib.suppress(WebSocketException):
        for message in connection:
            if isinstance(message, str):
                last = json.loads(message)
                continue
            out = sys.stderr.buffer if message[:1] == b"\x02" else sys.stdout.buffer
            out.write(message[1:])
            out.flush()
    return last


def _inward(connection: ClientConnection) -> None:
    from websockets.exceptions import WebSocketException

    with contextlib.suppress(OSError, ValueError, WebSocketException):
        while data := os.read(sys.stdin.fileno(), _BLOCK):
            connection.send(b"\x00" + data)
        connection.send(json.dumps({"type": "eof"}))


@contextlib.contextmanager
def _raw(tty: bool) -> Iterator[None]:
    if not tty or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty as terminals

    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        terminals.setraw(sys.stdin.fileno(), termios.TCSADRAIN)  # what was typed already stays
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes(connection: ClientConnection, tty: bool) -> Iterator[None]:
    """Tell the other side how large the window is; from a thread, because the handler may interrupt a send."""
    if not tty or not hasattr(signal, "SIGWINCH"):
        yield
        return
    changed, over = threading.Event(), threading.Event()

    def tell() -> None:
        while changed.wait() and not over.is_set():
            changed.clear()
            columns, rows = size()
            with contextlib.suppress(Exception):
                connection.send(json.dumps({"type": "resize", "columns": columns, "rows": rows}))

    before = signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        over.set()
        changed.set()
