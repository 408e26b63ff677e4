"""Faults at random for as long as wished: `python -m bench.chaos --minutes 60 --seed 7 [--galera | --one-host]`.

The same run as the three minutes in `./test.sh`, with the same verdict: nonzero when a promise was broken, 2 when the
run proves nothing because it reached too few rare states. Appends what it saw to RESULTS.md, by its seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.harness import report
from tests.cluster.galera import GaleraCluster
from tests.cluster.lab import Lab, Shape
from tests.cluster.one_host import OneHostLab
from tests.cluster.run import Outcome, chaos, keep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 30))
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--galera", action="store_true", help="three database servers instead of one")
    parser.add_argument("--one-host", action="store_true", help="as shipped: loopback and SQLite, no network to cut")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with lab_of(options) as lab:
        lab.start()
        demands = {"leader_changes": max(2, int(options.minutes)), "replays": 1}
        if lab.has_cables:  # on SQLite a frozen leader is killed before it can come as far as the fence
            demands |= {"fence_refusals": 1, "no_leader": 1}
        outcome = chaos(lab, options.seed, options.minutes * 60, lambda line: print(line, flush=True), **demands)
        if outcome.violations or outcome.void:
            print(f"kept in {keep(lab, outcome, Path(tempfile.mkdtemp(prefix='omni-chaos-')))}")
        lab.stop()
        orphans = lab.left_over()
    report(title(options), lines(outcome, orphans))
    return 1 if outcome.violations or orphans else 2 if outcome.void else 0


def lab_of(options: argparse.Namespace) -> Lab:
    if options.one_host:
        return OneHostLab(Shape(members=options.members, services=("worker",)))
    shape = Shape(members=options.members, services=("worker",), clocks=True, small_disks=True)
    return Lab(shape, GaleraCluster.of_lab(options.members) if options.galera else None)


def title(options: argparse.Namespace) -> str:
    where = "Galera, 3 servers" if options.galera else "one host, SQLite" if options.one_host else "MariaDB"
    return f"Chaos: {options.minutes:g} minutes, {options.members} members, {where}, seed {options.seed}"


def lines(outcome: Outcome, orphans: list[str]) -> list[str]:
    faults = Counter(one.name for one in outcome.played)
    found = Counter(one.rule for one in outcome.violations)
    return [
        f"{len(outcome.ops)} operations, {len(outcome.played)} faults of {len(faults)} kinds; all ready again "
        f"{outcome.settled_s:.1f} s after the last",
        str(outcome.reached),
        "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())),
        "violations: " + (", ".join(f"{rule} {count}" for rule, count in found.items()) or "none"),
        f"left running after the stop: {len(orphans) or 'nothing'}",
        *(f"VOID: {what}" for what in outcome.void),
    ]


if __name__ == "__main__":
    sys.exit(main())
