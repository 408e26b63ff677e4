"""The tiny process that stands between the agent and a program: it waits for it and writes down how it ended.

Owns the files through which the two talk, all in the instance's directory. The watcher is a shell (about 1 MiB, most
of it shared) in a session of its own. It outlives the agent, so an end is learnt whoever was away meanwhile, and it
begins only at the word of an agent that has already written the handle down: an agent that dies before has started
nothing. Output goes straight to files; the watcher never touches it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import procfs

HANDLE, EXIT, INFO = "process.json", "exit", "info.json"
INFO_FD = 3
NEVER = "never"

# $1 is the instance's directory. The traps keep the watcher alive when somebody signals its session; a handler
# (unlike an ignored signal) is not inherited by the program. `exit` is one short write, complete with its newline.
_SCRIPT = """d=$1; shift
read -r go || { echo never >"$d/exit"; exit 0; }
trap : TERM INT HUP
"$@" %s</dev/null
echo $? >"$d/exit"
"""
_TELLS = '3>"$d/info.json" '


@dataclass(frozen=True, slots=True)
class Ended:
    """`status` as a shell knows it: 128 + n for signal n. None: the program was never begun."""

    status: int | None


def spawn(
    argv: list[str], env: dict[str, str], directory: Path, stdout: int, stderr: int, info: bool
) -> subprocess.Popen[bytes]:
    """A watcher that waits for `release`; nothing of `argv` runs yet. `info`: it will tell about itself on INFO_FD."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _SCRIPT % (_TELLS if info else ""), "omni-instance", str(directory), *argv],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd="/",
        start_new_session=True,
    )


def release(process: subprocess.Popen[bytes]) -> None:
    """Let the watcher begin. A watcher that died meanwhile shows in `observe`, not here."""
    if process.stdin is None:
        raise ValueError("not a watcher of ours")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"go\n")
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def forget(directory: Path) -> None:
    """Clear what the last start left, before the next."""
    for name in (EXIT, INFO, HANDLE):
        (directory / name).unlink(missing_ok=True)


def ended(directory: Path) -> Ended | None:
    """What the watcher wrote; None while it has written nothing (or was prevented from it)."""
    try:
        text = (directory / EXIT).read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    if not text.endswith("\n"):
        return None
    word = text.strip()
    if word == NEVER:
        return Ended(None)
    return Ended(int(word)) if word.isdigit() else None


def write_handle(directory: Path, handle: dict[str, Any]) -> None:
    temporary = directory / f"{HANDLE}.new"
    temporary.write_text(json.dumps(handle), encoding="ascii")
    temporary.replace(directory / HANDLE)


def read_handle(directory: Path) -> dict[str, Any] | None:
    try:
        handle = json.loads((directory / HANDLE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return handle if isinstance(handle, dict) else None


def sandbox_init(directory: Path, not_before: int) -> int | None:
    """The init of the program's pid namespace, as bubblewrap told; None without one, or when it is gone.

    The pid is believed only while it is a namespace's init that began after the watcher did.
    """
    try:
        pid = json.loads((directory / INFO).read_text(encoding="ascii"))["child-pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    process = procfs.read(pid)
    if process is None or not process.alive or process.start_time < not_before:
        return None
    return pid if procfs.namespace_init(pid) else None


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def label(platform: str, node: str, instance_id: int) -> str:
    return f"{platform}:{node}:{instance_id}"


LABEL = "OMNI_LABEL"


def labelled(platform: str, node: str | None = None) -> dict[int, set[int]]:
    """Instance id → pids of this platform's (and node's) processes that carry a label, as far as we may read them."""
    found: dict[int, set[int]] = {}
    own = os.getpid()
    for pid in procfs.scan():
        text = procfs.variable(pid, LABEL) if pid != own else None
        if text is None:
            continue
        head, _, number = text.rpartition(":")
        theirs, _, their_node = head.partition(":")  # a node's name may hold colons (IPv6)
        if theirs == platform and node in (None, their_node) and number.isdigit():
            found.setdefault(int(number), set()).add(pid)
    return found
