"""How quick placement decides: `python -m bench.placement [--nodes 1000] [--rounds 5]`. Needs no server.

Apps with one and with ten instances each, ten different constraints in play, verdicts and all. The floor is one pass of
plain Python over the same nodes that only looks at their free memory. All times are CPU time of this process: deciding
waits for nothing, and so other work on the machine does not count. Published: Nomad's C2M 1,500 placements/s.
"""

from __future__ import annotations

import argparse
import time

from bench.harness import report, table
from bench.rounds import verdict
from instances.placement import Constraint, Need, NodeView, Pool

_GOAL_PER_S = 5_000
_PLACED = 4_000
_SIZES = (100, 1000, 5000)

CONSTRAINTS = [
    (Constraint("zone", "=", "a"),),
    (Constraint("zone", "!=", "b"),),
    (Constraint("disk", "=", "ssd"),),
    (Constraint("disk", "exists"),),
    (Constraint("zone", "in", ("a", "c")),),
    (Constraint("zone", "not_in", ("c",)),),
    (Constraint("arch", "=", "x86"), Constraint("disk", "=", "ssd")),
    (Constraint("gpu", "exists"),),
    (Constraint("rack", "=", "r1"), Constraint("zone", "=", "a")),
    (),
]


def nodes(count: int) -> list[NodeView]:
    """A mixed cluster, three quarters full; one in fifty lost or draining."""
    return [
        NodeView(
            i, f"node-{i:05}", "ready" if i % 50 else ("lost" if i % 100 else "draining"), 65_536, 16,
            32_768 + (i * 7919) % 16_384, 8.0,
            labels={"zone": "abc"[i % 3], "disk": "ssd" if i % 2 else "hdd", "arch": "x86" if i % 5 else "arm",
                    "rack": f"r{i % 7}", **({"gpu": "1"} if i % 10 == 0 else {})},
        )
        for i in range(count)
    ]  # fmt: skip


def place(count: int, instances: int) -> float:
    """CPU seconds for `_PLACED` placements, `instances` an app, each app's plan with books of its own."""
    pool = Pool(nodes(count))
    begun, placed, app = time.process_time(), 0, 0
    while placed < _PLACED:
        app += 1
        constraints = CONSTRAINTS[app % len(CONSTRAINTS)]
        need = Need(
            32, 0.1, "process", constraints, rank="binpack" if app % 4 == 0 else "spread",
            spread_by="zone" if app % 5 == 0 else "",
        )  # fmt: skip
        books, own = pool.fork(), dict[int, int]()
        for _ in range(instances):
            choice = books.choose(need, own)
            assert choice.node is not None, choice.reason
            books.take(choice.node.id, need.memory_mb, need.cpu)
            own[choice.node.id] = own.get(choice.node.id, 0) + 1
        for node_id, taken in own.items():
            for _ in range(taken):
                pool.take(node_id, need.memory_mb, need.cpu)
        placed += instances
    return time.process_time() - begun


def floor(count: int) -> float:
    """CPU seconds for as many plain passes over the free memory of all nodes."""
    views = nodes(count)
    free = [view.memory_mb - view.memory_used_mb for view in views]
    begun = time.process_time()
    for _ in range(_PLACED // 10):
        assert max(range(count), key=free.__getitem__) >= 0
    return (time.process_time() - begun) * 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.placement")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rows, rates = [], dict[tuple[int, int], float]()
    for count in _SIZES:
        base = min(floor(count) for _ in range(rounds))
        for instances in (1, 10):
            taken = sorted(place(count, instances) for _ in range(rounds))
            rates[count, instances] = _PLACED / taken[rounds // 2]
            spread = f"{_PLACED / taken[-1]:.0f} to {_PLACED / taken[0]:.0f}"
            rows.append(
                [
                    str(count),
                    str(instances),
                    f"{rates[count, instances]:.0f}",
                    spread,
                    f"{base / taken[rounds // 2]:.2f}",
                ]
            )
    slow = min(rates[1000, 1], rates[1000, 10])
    growth = max(rates[100, n] / rates[5000, n] for n in (1, 10))
    report(
        "Placement: decisions a CPU second, with verdicts",
        [
            *table(["nodes", "instances an app", "per CPU s", "range", "of one plain pass"], rows),
            "",
            f"- 1,000 nodes, 10 constraints: {slow:.0f}/s {verdict(slow, _GOAL_PER_S)}; published: Nomad C2M 1,500/s",
            f"- cost at 5,000 nodes / at 100: {growth:.1f} {'met' if growth <= 50 else 'MISSED'} (≤ 50, linear)",
        ],
    )


if __name__ == "__main__":
    main()
