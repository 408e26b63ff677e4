"""What a node costs when nothing happens: `python -m bench.idle [--settle 30] [--seconds 30]`.

The whole platform of config.json (four nodes, embedded defaults) is started by the launcher itself; of each node the
processor time and the memory of supervisor, web server, daemon and agent are summed. PSS divides shared pages fairly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import PROJECT, answers, free_ports, report, table, wait_for
from bench.rounds import verdict
from omni.launch import proc

_CPU_GOAL, _MEMORY_GOAL = 5.0, 250.0
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idle")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--settle", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="omni-idle-") as temporary:
        ports = free_ports(options.nodes + 1)
        config, state = Path(temporary, "config.json"), Path(temporary, "state")
        members = [{"port": port, "address": "127.0.0.1"} for port in ports[:-1]]
        given = {"port": ports[0], "address": "127.0.0.1", "instances": members, "ingress": {"port": ports[-1]}}
        config.write_text(json.dumps(given))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OMNI_")}
        command = [sys.executable, "-m", "omni.launch", "--config", str(config), "--state", str(state)]
        with Path(temporary, "log").open("wb") as log:
            started = time.monotonic()
            launcher = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        try:
            for port in ports[:-1]:
                wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}/health/ready"), f"node {port}",  # type: ignore[misc]
                         Path(temporary, "log").read_text)  # fmt: skip
            ready_s = time.monotonic() - started
            time.sleep(options.settle)
            rows, worst = measure(state, ports[:-1], options.seconds)
        finally:
            launcher.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                launcher.wait(40)
            launcher.kill()
            proc.end([found.pid for found in proc.marked(str(state), lambda _mark: True)], grace_s=3.0)
    cpu, pss = worst
    lines = table(["group", "CPU, % of a core", "PSS, MiB", "RSS, MiB", "processes"], rows)
    lines += [
        "",
        f"dearest node: {cpu:.2f} % {verdict(cpu, _CPU_GOAL, at_most=True)}, PSS {pss:.0f} MiB "
        f"{verdict(pss, _MEMORY_GOAL, at_most=True)}; start to all ready {ready_s:.1f} s (first start)",
    ]
    report("Idle: one node's processes", lines)


def measure(state: Path, ports: list[int], seconds: float) -> tuple[list[list[str]], tuple[float, float]]:
    """A row for each node, and for each kind of process of the first; the highest CPU and PSS of a node."""
    groups = {f"node {port}": _pids(state, f"node-{port}") for port in ports}
    for role in ("web", "daemon", "agent"):
        groups[f"· {role} of node {ports[0]}"] = _pids(state, f"node-{ports[0]}/{role}")
    for name in ("broker", "worker", "ingress"):
        groups[name] = _pids(state, name)
    before = {name: sum(map(_cpu_s, pids)) for name, pids in groups.items()}
    started = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    rows, worst_cpu, worst_pss = [], 0.0, 0.0
    for name, pids in groups.items():
        cpu = (sum(map(_cpu_s, pids)) - before[name]) / elapsed * 100
        pss, rss = (sum(_memory(pid, kind) for pid in pids) for kind in ("Pss", "Rss"))
        rows.append([name, f"{cpu:.2f}", f"{pss:.0f}", f"{rss:.0f}", str(len(pids))])
        if name.startswith("node "):
            worst_cpu, worst_pss = max(worst_cpu, cpu), max(worst_pss, pss)
    return rows, (worst_cpu, worst_pss)


def _pids(state: Path, mark: str) -> list[int]:
    found = proc.marked(str(state), lambda given: given == mark or given.startswith(mark + "/"))
    return [one.pid for one in found]


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def _memory(pid: int, kind: str) -> float:
    """MiB, of the kernel's own sum over all mappings."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
