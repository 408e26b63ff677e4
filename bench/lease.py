"""What it costs to know who leads: `python -m bench.lease [--reads 200000]`.

A process of its own writes the pages as a daemon and a Raft process do, every 15 ms; this one reads them, as a web
worker does before each write. The floor is a function that returns a constant. Aim: under 50 µs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import report, table
from bench.rounds import verdict
from consensus.elected import ElectedLease
from consensus.lease import Held
from consensus.page import PageLease, PageWriter
from consensus.raft.page import RaftPage, RaftPageWriter, RaftView

_AIM_US = 50.0
_EVERY_S = 0.015
_ME = "127.0.0.1:8000"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.lease")
    parser.add_argument("--reads", type=int, default=200_000)
    reads = parser.parse_args().reads
    with tempfile.TemporaryDirectory(prefix="omni-lease-") as folder:
        page, raft = Path(folder, "lease"), Path(folder, "raft.page")
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(page, raft), daemon=True)
        writer.start()
        lease, elected = PageLease(page), ElectedLease(_ME, RaftPage(raft))
        elected.grant(3, 7, "claim")
        while not (page.exists() and raft.exists()):
            time.sleep(0.01)
        time.sleep(5 * _EVERY_S)
        try:
            assert isinstance(lease.current(), Held)
            assert isinstance(elected.current(), Held)
            rows = [
                row("a function that returns a constant (floor)", lambda: None, reads),
                row("web worker: the lease page", lease.current, reads),
                row("daemon: the elected lease on Raft's page", elected.current, reads),
            ]
        finally:
            writer.terminate()
            writer.join(5)
    worst = float(rows[1][3])
    lines = table(["read", "mean, µs", "p50, µs", "p99, µs", "max, µs"], rows)
    lines += ["", f"the lease page, p99: {worst:.2f} µs {verdict(worst, _AIM_US, at_most=True)}"]
    report("Lease: who leads, read locally", lines)


def write(page: Path, raft: Path) -> None:
    """Both pages, renewed for ever."""
    lease_page, raft_page = PageWriter(page), RaftPageWriter(raft)
    while True:
        until = time.monotonic() + 2.0
        raft_page.write(RaftView("leader", 3, _ME, True, until, 10, os.getpid()))
        lease_page.held(Held(7, until, "claim"), _ME)
        time.sleep(_EVERY_S)


def row(name: str, read: Callable[[], object], reads: int) -> list[str]:
    """Mean of a tight loop; the spread from calls that are timed one by one (which costs some 0.1 µs each)."""
    begun = time.perf_counter_ns()
    for _ in range(reads):
        read()
    mean = (time.perf_counter_ns() - begun) / reads / 1000
    single: list[float] = []
    for _ in range(reads):
        at = time.perf_counter_ns()
        read()
        single.append((time.perf_counter_ns() - at) / 1000)
    single.sort()
    p99 = single[int(len(single) * 0.99)]
    return [name, f"{mean:.2f}", f"{statistics.median(single):.2f}", f"{p99:.2f}", f"{single[-1]:.0f}"]


if __name__ == "__main__":
    main()
