"""What creating an app costs on MariaDB: `python -m bench.create [--seconds 4] [--rounds 3]`.

The floor is a bare Django view that does one INSERT and commits: same front, workers, threads, connections, database.
Beside one connection and eight, the share of the gate is shown by events and index in the same transaction.
"""

from __future__ import annotations

import argparse

from bench import load
from bench.harness import Platform, report, table
from bench.load import Measured
from bench.rounds import Rounds, verdict

_GOAL, _GOAL_PER_S = 0.5, 200


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.create")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: list[list[str]] = []
    notes: list[str] = []
    with Platform() as platform:
        platform.start_floor()
        for connections in (1, 8, 32):
            rounds = measure(platform, connections, options.seconds, options.rounds)
            ratio, per_s = rounds.ratio("create", "insert"), rounds.per_s("create")
            rows += [
                [str(connections), name, f"{rounds.per_s(name):.0f}", rounds.latency(name)]
                + [f"{rounds.cpu_ms(name, what):.2f}" for what in ("web", "database")]
                for name in rounds.results
            ]
            dearer = rounds.cpu_ratio("create", "insert", "web")
            said = f"create / insert at {connections} connections: {ratio:.2f}, at {dearer:.1f} times the web CPU"
            if connections == 8:
                said += f" {verdict(ratio, _GOAL)}; {per_s:.0f}/s {verdict(per_s, _GOAL_PER_S)}"
            notes.append(said)
        created = int(platform.sql("SELECT COUNT(*) FROM apps_app"))
        events = int(platform.sql("SELECT COUNT(*) FROM kernel_event WHERE kind = 'app.created'"))
    notes.append(f"{created} apps and as many events: {'yes' if created == events else f'NO, {events}'}")
    notes.append("published peer: 1,325 empty Swarm services/s from eight clients")
    lines = table(["connections", "what", "per s", "p50 / p99 ms", "web CPU ms", "database CPU ms"], rows)
    report("Create: POST /app/create against one INSERT", [*lines, "", *(f"- {note}" for note in notes)])


def measure(platform: Platform, connections: int, seconds: float, rounds: int) -> Rounds:
    floor = load.request_of("POST", "/insert", {}, '{"name":"bench-{n}"}')
    ours = load.request_of("POST", "/app/create", platform.headers, '{"name":"bench-{n}","memory_mb":32}')

    def ask(server: str, port: int, request: str) -> Measured:
        watch = {"web": platform.pids(server), "database": platform.pids("database")}
        return load.run(port, [request], connections=connections, seconds=seconds, watch=watch).check(201)

    def insert() -> Measured:
        return ask("floor", platform.floor_port, floor)

    def create() -> Measured:
        return ask("web", platform.port, ours)

    return Rounds({"insert": insert, "create": create}, rounds)


if __name__ == "__main__":
    main()
