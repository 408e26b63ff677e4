"""What `sandbox/enter.py` is told, for a command among the processes of a sandboxed instance.

Pure but for two looks at /proc. Where there is no sandbox the command has the program's user, limits and real paths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import sandbox
from agent import procfs
from agent.runtimes.base import Unavailable
from agent.runtimes.tree import Tree
from sandbox import bubblewrap
from sandbox.probe import Facts

COMMAND = (sys.executable, "-I", "-S", str(Path(sandbox.__file__).with_name("enter.py")))


def told(spec: bubblewrap.Spec, facts: Facts, tree: Tree, tty: bool) -> bytes:
    """Raises Unavailable when the instance is gone."""
    if not tree.watched():
        raise Unavailable("the instance has ended")
    argv, env, cwd, pid, start_time = spec.argv, dict(spec.env), spec.cwd, None, 0
    if tree.sandboxed:
        pid = tree.init()
        process = procfs.read(pid) if pid is not None else None
        if process is None:
            raise Unavailable("the instance's sandbox is not up")
        start_time = process.start_time
    else:
        argv = [bubblewrap.host_path(spec, part) for part in argv]
        env = {name: ":".join(bubblewrap.host_path(spec, part) for part in v.split(":")) for name, v in env.items()}
        cwd = bubblewrap.host_path(spec, cwd)
    wish = {
        "pid": pid,
        "start_time": start_time,
        "cgroup": tree.group.doors() if tree.group is not None else [],
        "filter": facts.filter if tree.sandboxed else None,
        "uid": spec.uid if facts.user_switch else None,
        "cwd": cwd,
        "argv": argv,
        "env": env,
        "tty": tty,
    }
    return json.dumps(wish).encode()
