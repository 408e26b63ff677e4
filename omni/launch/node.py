"""The supervisor of one node: `python -m omni.launch.node --port P` runs web server, daemon and agent.

Owns the node's process group and `supervisor.pid`: killing the group kills the node and none of the app instances,
which live in sessions of their own. Must stay small: it runs for ever, and there is one for each node.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omni.launch import proc
from omni.launch.pidfile import AlreadyRunning, PidFile
from omni.launch.spec import ProcessSpec
from omni.launch.supervisor import Signals, Supervisor

_PLAN_TIMEOUT_S = 60


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    if options is None:
        print("usage: python -m omni.launch.node --port P [--address A] [--config FILE] [--log -] [--no-restart]")
        return 2
    plan = _read_plan(options)
    if plan is None:
        return 2
    return run(plan, options["port"], restart="no-restart" not in options, to_log=options.get("log") != "-")


def run(plan: dict[str, Any], port: str, *, restart: bool, to_log: bool = True) -> int:
    """Keep the node's processes running until SIGTERM."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):  # already the leader of its group
            os.setsid()
    state = Path(plan["state"])
    pid_file = PidFile(state / f"node-{port}" / "supervisor.pid")
    try:
        pid_file.take()
    except AlreadyRunning as other:
        print(f"The node on port {port} is already running (pid {other.pid}).", file=sys.stderr)
        return 1
    signals = Signals()
    supervisor = Supervisor(str(state), restart=restart, say=_say, signals=signals)
    left = proc.marked(str(state), lambda mark: mark.startswith(f"node-{port}/"))
    if left:
        _say(f"ending {len(left)} processes of an earlier run of this node")
        proc.end([found.pid for found in left], grace_s=5.0)
    _forget_counts(state / f"node-{port}" / "measures")
    for data in plan["node_processes"][port]:
        supervisor.start(ProcessSpec.from_json(data if to_log else {**data, "log": ""}))
    while not signals.stops:
        supervisor.watch(60.0)
    supervisor.stop(hurry=lambda: signals.stops > 1)
    _end_group()
    pid_file.release()
    return 0


def _forget_counts(folder: Path) -> None:
    """What the processes of an earlier run counted: their files would be added up for ever."""
    for file in folder.glob("*.db"):
        with contextlib.suppress(OSError):
            file.unlink()


def _end_group() -> None:
    """Whatever still is in our group goes with us."""
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        proc.end([pid for pid in proc.group_members(os.getpid()) if pid != os.getpid()], grace_s=1.0)


def _say(line: str) -> None:
    if os.environ.get("OMNI_LOG_FORMAT") == "json":
        # The keys of observing.journal, without `logging`, which this process has no other use for.
        at, process = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.environ.get("OMNI_PROCESS", "")
        said = {"at": at, "level": "INFO", "logger": "omni.supervisor", "process": process, "request_id": "-"}
        print(json.dumps({**said, "message": line}), flush=True)
    else:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} supervisor: {line}", flush=True)


def _parse(arguments: list[str]) -> dict[str, str] | None:
    """Options by hand: argparse would cost 2 MiB for the life of the node."""
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("--")
        if name == "no-restart":
            options[name] = ""
        elif name in ("port", "address", "plan", "config", "log") and word.startswith("--"):
            options[name] = next(words, "")
        else:
            return None
    return options if options.get("port", "").isdigit() else None


def _read_plan(options: dict[str, str]) -> dict[str, Any] | None:
    path = options.get("plan", "")
    if not path:
        command = [sys.executable, "-m", "omni.launch.plan", "--node", "--port", options["port"]]
        for name in ("address", "config"):
            command += [f"--{name}", options[name]] if name in options else []
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_PLAN_TIMEOUT_S, check=False, text=True)
        if done.returncode:
            return None
        path = done.stdout.strip()
    data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    if options["port"] not in data["node_processes"]:
        print(f"{path} knows no node on port {options['port']} of this machine", file=sys.stderr)
        return None
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
