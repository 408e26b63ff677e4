"""What a leader's end costs: `python -m bench.failover [--trials 30] [--busy-minutes 10] [--only killed,frozen,…]`.

Three members in network namespaces, one MariaDB. Each trial: the leader ends in one way, and a client asks a surviving
follower for a write at that moment; the figure is how long until one is accepted. Then what writing costs in quiet
times: on the leader, through a follower, with the fence and without; and what a member of the agreement costs at rest.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.fence_cost import fence_ratio
from bench.harness import report, table
from bench.rounds import verdict
from omni.launch import proc
from tests.cluster import network
from tests.cluster.lab import Lab, Shape, settle
from tests.cluster.nodes import LabNode
from tests.running_platform import wait_for

_TICKS = os.sysconf("SC_CLK_TCK")
_GOAL_KILL_S, _GOAL_FORWARDED = 1.0, 1.5
_WAYS = ("killed", "frozen", "cut off", "frozen in its transaction", "handed over")
_numbers = itertools.count(1)


class Client:
    """One kept-alive connection to one member, without a library's own time in the figures."""

    def __init__(self, node: LabNode, token: str) -> None:
        self.node, self._token = node, token
        self._wire: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, timeout_s: float = 10.0) -> tuple[int, dict[str, str]]:
        """(status, headers); 0 when the connection broke."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        headers["Idempotency-Key"] = f"f{os.getpid()}-{next(_numbers)}"
        if self._wire is None:
            self._wire = http.client.HTTPConnection(self.node.host.address, self.node.port, timeout=timeout_s)
        try:
            self._wire.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self._wire.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, {}
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    def write(self) -> int:
        status, _ = self.call("POST", "/app/create", {"name": f"f{next(_numbers)}-{os.getpid()}", "memory_mb": 32})
        return status

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._wire = None


@dataclass
class Trials:
    """Seconds until the next accepted write; `refused`: answers that were no yes on the way there."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def row(self, name: str) -> list[str]:
        found = sorted(self.seconds)
        high = found[min(len(found) - 1, int(len(found) * 0.95))]
        figures = [f"{statistics.median(found):.2f}", f"{high:.2f}", f"{found[-1]:.2f}"]
        return [name, str(len(found)), *figures, str(self.refused)]

    @property
    def p95(self) -> float:
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(len(found) * 0.95))]


def until_accepted(client: Client, trials: Trials, since: float) -> None:
    while True:
        status = client.write()
        if 200 <= status < 300:
            trials.seconds.append(time.monotonic() - since)
            return
        trials.refused += 1
        if time.monotonic() - since > 30:
            raise RuntimeError(f"no write was accepted within 30 s; the last answer was {status}")
        time.sleep(0.005)


def one_trial(lab: Lab, way: str, trials: Trials) -> None:
    leader = lab.wait_for_leader()
    client = Client(next(node for node in lab.nodes if node is not leader), lab.token)
    if not 200 <= client.write() < 300:
        raise RuntimeError("the cluster takes no writes before the trial")
    if way == "killed":
        since = time.monotonic()
        leader.kill()
    elif way == "frozen":
        since = time.monotonic()
        leader.freeze()
    elif way == "cut off":
        others = [node.host.address for node in lab.nodes if node is not leader]
        since = time.monotonic()
        network.cut(leader.host, [*others, *lab.database.addresses])
    elif way == "handed over":
        hand_over(lab, leader, client, trials)
        client.close()
        return
    else:
        since = freeze_in_transaction(leader, lab)
    until_accepted(client, trials, since)
    client.close()
    network.heal(leader.host)
    if leader.frozen:
        leader.thaw()
    if not leader.alive:
        leader.start()


def freeze_in_transaction(leader: LabNode, lab: Lab) -> float:
    """A write of its own walks the leader into the failpoint; when it has."""
    before = len(leader.hits())
    leader.arm("fenced_before_commit", "stop")
    victim = multiprocessing.get_context("fork").Process(target=_write_and_forget, args=(leader, lab.token))
    victim.start()
    while len(leader.hits()) == before:
        time.sleep(0.0005)
    since = time.monotonic()
    leader.frozen = True
    victim.kill()
    victim.join()
    leader.disarm()
    return since


def _write_and_forget(node: LabNode, token: str) -> None:
    Client(node, token).write()


def hand_over(lab: Lab, leader: LabNode, client: Client, trials: Trials) -> None:
    """Writes one after the other while leadership moves: the longest of them is the figure."""
    asked = multiprocessing.get_context("fork").Process(target=_ask_for_transfer, args=(leader, lab.token))
    slowest, since = 0.0, time.monotonic()
    asked.start()
    while time.monotonic() - since < 2.0:
        begun = time.monotonic()
        status = client.write()
        slowest = max(slowest, time.monotonic() - begun)
        trials.refused += not 200 <= status < 300
    asked.join()
    if lab.wait_for_leader() is leader:
        raise RuntimeError("leadership did not move")
    trials.seconds.append(slowest)


def _ask_for_transfer(node: LabNode, token: str) -> None:
    status, _ = Client(node, token).call("POST", "/cluster/transfer")
    sys.exit(0 if 200 <= status < 300 else 1)


def latencies(lab: Lab, rounds: int, count: int) -> tuple[list[float], list[float]]:
    """p50 of a write in milliseconds, round by round: on the leader, and through a follower."""
    leader = lab.wait_for_leader()
    follower = next(node for node in lab.nodes if node is not leader)
    clients = [Client(leader, lab.token), Client(follower, lab.token)]
    clients[0].call("POST", "/app/create", {"name": "latency", "memory_mb": 32})
    results: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for client, found in zip(clients, results, strict=True):
            times = []
            for number in range(count):
                begun = time.perf_counter()
                status, _ = client.call("PATCH", "/app/latency", {"description": f"{number} {begun}"})
                times.append((time.perf_counter() - begun) * 1000)
                if status != 200:
                    raise RuntimeError(f"a write was answered {status}")
            found.append(statistics.median(times))
    return results


def idle_cpu(lab: Lab, seconds: float) -> list[list[str]]:
    """Percent of a core of each member's Raft process, and of its daemon."""

    def spent() -> dict[str, float]:
        found: dict[str, float] = {}
        for node in lab.nodes:
            for one in proc.marked(str(node.state)):
                name = f"{one.mark.rpartition('/')[2]} of {node.name}"
                if one.mark.endswith(("/raft", "/daemon")):
                    found[name] = found.get(name, 0.0) + _cpu_s(one.pid)
        return found

    before, begun = spent(), time.monotonic()
    time.sleep(seconds)
    after, took = spent(), time.monotonic() - begun
    return [[name, f"{(after[name] - before.get(name, 0.0)) / took * 100:.2f}"] for name in sorted(after)]


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def elections_while_busy(lab: Lab, minutes: float) -> tuple[int, int]:
    """(changes of epoch, changes of term) with one busy process for each core."""
    before = _terms(lab)
    busy = [multiprocessing.get_context("fork").Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 2)]
    for process in busy:
        process.start()
    try:
        time.sleep(minutes * 60)
        after = _terms(lab)
    finally:
        for process in busy:
            process.kill()
            process.join()
    return after[0] - before[0], after[1] - before[1]


def _spin() -> None:
    while True:
        pass


def _terms(lab: Lab) -> tuple[int, int]:
    def look() -> tuple[int, int] | None:
        answer = lab.get(lab.nodes[0], "/cluster/status", 5.0)
        body = answer.json() if answer is not None and answer.status_code == 200 else {}
        return (int(body["epoch"]), int(body["term"])) if body.get("epoch") and body.get("term") else None

    found = wait_for(look, "the epoch and the term", 30)
    assert found is not None
    return found


def measure(lab: Lab, way: str, count: int) -> Trials:
    trials = Trials()
    for number in range(count):
        settle(lab, 120)
        time.sleep(1.0)
        one_trial(lab, way, trials)
        print(f"{way}, {number + 1} of {count}: {trials.seconds[-1]:.3f} s", file=sys.stderr, flush=True)
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.failover")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--busy-minutes", type=float, default=10.0)
    parser.add_argument("--only", default="", help=f"of: {', '.join(_WAYS)}, costs, busy")
    options = parser.parse_args()
    wanted = [part.strip() for part in options.only.split(",") if part.strip()] or [*_WAYS, "costs", "busy"]
    with Lab(Shape(members=options.members)) as lab:
        lab.start()
        lines = failovers(lab, [way for way in _WAYS if way in wanted], options.trials)
        settle(lab, 120)
        if "costs" in wanted:
            lines += costs(lab)
        if "busy" in wanted:
            minutes = options.busy_minutes
            epochs, terms = elections_while_busy(lab, minutes)
            lines.append(f"{minutes:g} minutes with every core kept busy: {epochs} new leaders, {terms} new terms")
        lab.stop()
    report(f"Failover: {options.members} members, MariaDB, each in a network namespace", lines)


def failovers(lab: Lab, ways: list[str], trials: int) -> list[str]:
    found = {way: measure(lab, way, trials) for way in ways}
    if not found:
        return []
    head = ["the leader is", "trials", "p50, s", "p95, s", "max, s", "refused on the way"]
    lines = [*table(head, [one.row(way) for way, one in found.items()]), ""]
    if "killed" in found:
        met = verdict(found["killed"].p95, _GOAL_KILL_S, at_most=True)
        lines.append(f"killed (its connections are reset) → next accepted write, p95: {met}")
    if "handed over" in found:
        lines.append("handed over: the slowest of the writes that ran meanwhile; the aim is that none is refused")
    return lines


def costs(lab: Lab) -> list[str]:
    direct, forwarded = latencies(lab, rounds=5, count=60)
    ratio = statistics.median(f / d for d, f in zip(direct, forwarded, strict=True))
    time.sleep(5.0)
    idle = idle_cpu(lab, 20.0)
    fenced = fence_ratio()
    return [
        "",
        f"a write (PATCH, one connection, p50): on the leader {statistics.median(direct):.1f} ms, through a follower "
        f"{statistics.median(forwarded):.1f} ms; ratio {ratio:.2f} {verdict(ratio, _GOAL_FORWARDED, at_most=True)}",
        f"a fenced transaction against the same one without its fence, one connection: {fenced}",
        "",
        *table(["at rest", "CPU, % of a core"], idle),
        "",
    ]


if __name__ == "__main__":
    main()
