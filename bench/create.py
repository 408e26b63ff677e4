"""What creating an app costs on MariaDB: `python -m bench.create [--rounds 10] [--slot 1.0]`.

The floor is a bare Django view that does one INSERT and commits: same front, workers, threads, connections, database.
Both are asked in short turns, so that what else the machine does hits both; CPU time per request is the measure that
does not depend on it. Each answer is checked, and at the end that every app has its event.
"""

from __future__ import annotations

import argparse

from bench import load
from bench.harness import Platform, report, table
from bench.load import Target
from bench.rounds import Rounds, verdict

_GOAL, _GOAL_PER_S = 0.5, 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.create")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--slot", type=float, default=1.0)
    options = parser.parse_args()
    rows: list[list[str]] = []
    notes: list[str] = []
    with Platform() as platform:
        platform.start_floor()
        for connections in (1, 8, 32):
            rounds = measure(platform, connections, options.rounds, options.slot)
            ratio, per_s = rounds.ratio("create", "insert"), rounds.per_s("create")
            rows += [
                [str(connections), name, f"{rounds.per_s(name):.0f}", rounds.latency(name)]
                + [f"{rounds.cpu_ms(name, what):.2f}" for what in ("web", "database")]
                for name in rounds.results
            ]
            low, high = rounds.spread("create", "insert")
            dearer = [f"{rounds.cpu_in_all('create', 'insert', what):.2f}" for what in ("web", "database")]
            said = (
                f"create / insert at {connections}: {ratio:.2f} (half of the rounds {low:.2f}-{high:.2f}), "
                f"CPU {dearer[0]} times (web) and {dearer[1]} times (database)"
            )
            if connections == 8:
                said += f"; {verdict(ratio, _GOAL)}; {per_s:.0f}/s {verdict(per_s, _GOAL_PER_S)}"
            notes.append(said)
        created = int(platform.sql("SELECT COUNT(*) FROM apps_app"))
        events = int(platform.sql("SELECT COUNT(*) FROM kernel_event WHERE kind = 'app.created'"))
    notes.append(f"{created} apps and as many events: {'yes' if created == events else f'NO, {events}'}")
    notes.append("published peer: 1,325 empty Swarm services/s from eight clients")
    lines = table(["connections", "what", "per s", "p50 / p99 ms", "web CPU ms", "database CPU ms"], rows)
    report("Create: POST /app/create against one INSERT", [*lines, "", *(f"- {note}" for note in notes)])


def measure(platform: Platform, connections: int, rounds: int, slot_s: float) -> Rounds:
    database = platform.pids("database")
    floor = load.request_of("POST", "/insert", {}, '{"name":"bench-{n}"}')
    ours = load.request_of("POST", "/app/create", platform.headers, '{"name":"bench-{n}","memory_mb":32}')
    targets = {
        "insert": Target(platform.floor_port, [floor], {"web": platform.pids("floor"), "database": database}),
        "create": Target(platform.port, [ours], {"web": platform.pids("web"), "database": database}),
    }
    results = load.turns(targets, rounds=rounds, slot_s=slot_s, connections=connections)
    return Rounds.of({name: [one.check(201) for one in found] for name, found in results.items()})


if __name__ == "__main__":
    main()
