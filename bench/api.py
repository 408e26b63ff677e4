"""What polling costs: `python -m bench.api [--rounds 24] [--slot 0.5] [--apps 10000]`.

The floor is an empty Django view behind the same front, with as many workers and threads. `metrics`, `info` and the
first page of 100 instances are measured against it. Whether `metrics` costs the same with 10 apps and with many is
asked of two platforms side by side: of their answers, in many short turns, and of the reading behind the answers, which
the cache of a second hides from a poller.
"""

from __future__ import annotations

import argparse
import statistics

from bench import load
from bench.harness import Platform, report, table
from bench.load import Target
from bench.rounds import Rounds, verdict

_FEW = 10
FLOOR, _SMALL = "empty view", f"metrics with {_FEW} apps"
_GOALS = {"metrics": 0.5, "info": 0.2, "100 instances": 0.2}
_READING = """
import statistics, time
from instances.telemetry.figures import read_app
ids = IDS
times = []
for turn in range(1200):
    begun = time.perf_counter()
    assert read_app(ids[turn % len(ids)])
    times.append(time.perf_counter() - begun)
print(statistics.quantiles(times[50:])[0] * 1e6)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--slot", type=float, default=0.5)
    parser.add_argument("--apps", type=int, default=10_000)
    options = parser.parse_args()
    with Platform() as small, Platform() as large:
        large.start_floor()
        few, many = _seed(small, _FEW), _seed(large, options.apps)
        rounds = measure(small, large, few, many, options)
        readings = _readings({"few": (small, few), "many": (large, many)})
    rows = []
    for name in rounds.results:
        ratio = rounds.ratio(name, FLOOR)
        goal = verdict(ratio, _GOALS[name]) if name in _GOALS else ""
        spent = [f"{rounds.cpu_ms(name, what):.2f}" for what in ("web", "database")]
        rows.append([name, f"{rounds.per_s(name):.0f}", rounds.latency(name), *spent, f"{ratio:.2f}", goal])
    head = [f"with {options.apps} apps", "requests/s", "p50 / p99 ms", "web CPU ms", "database CPU ms",
            "of the empty view", "goal"]  # fmt: skip
    report("API: polling against an empty view", [*table(head, rows), "", *_grown(rounds, readings, options.apps)])


def _grown(rounds: Rounds, readings: dict[str, list[float]], apps: int) -> list[str]:
    """What becomes of `metrics` when there are many apps."""
    grown, (low, high) = rounds.ratio("metrics", _SMALL), rounds.spread("metrics", _SMALL)
    cpu = rounds.cpu_in_all("metrics", _SMALL, "web")
    few, many = (statistics.median(readings[name]) for name in ("few", "many"))
    return [
        f"metrics with {apps} apps / with {_FEW}: {grown:.2f} {verdict(grown, 0.9)}, half of the rounds between "
        f"{low:.2f} and {high:.2f}; CPU of the web process per request {cpu:.2f} {verdict(cpu, 1.1, at_most=True)}",
        "",
        f"one reading of the database behind it: {many:.0f} µs with {apps} apps, {few:.0f} µs with {_FEW}: "
        f"{many / few:.2f} {verdict(many / few, 1.25, at_most=True)}",
    ]


def measure(small: Platform, large: Platform, few: range, many: range, options: argparse.Namespace) -> Rounds:
    """All candidates in turn, on both platforms; of as many apps on the large one as there are on the small one."""
    some = _spread(many, len(few))

    def ask(platform: Platform, server: str, paths: list[str]) -> Target:
        port, headers = (platform.floor_port, {}) if server == "floor" else (platform.port, platform.headers)
        watch = {"web": platform.pids(server), "database": platform.pids("database")}
        return Target(port, [load.request_of("GET", path, headers) for path in paths], watch)

    targets = {
        FLOOR: ask(large, "floor", ["/empty"]),
        "one row, bare": ask(large, "floor", ["/one"]),
        "metrics": ask(large, "web", [f"/app/{n}/metrics" for n in some]),
        _SMALL: ask(small, "web", [f"/app/{n}/metrics" for n in few]),
        "info": ask(large, "web", [f"/app/{n}/info" for n in some]),
        "100 instances": ask(large, "web", [f"/app/{many[0]}/instances?limit=100"]),
    }
    results = load.turns(targets, rounds=options.rounds, slot_s=options.slot)
    return Rounds.of({name: [one.check(200) for one in found] for name, found in results.items()})


def _readings(platforms: dict[str, tuple[Platform, range]], rounds: int = 6) -> dict[str, list[float]]:
    """Microseconds of one uncached reading, in turn: the fast quarter, which no neighbour disturbed."""
    found: dict[str, list[float]] = {name: [] for name in platforms}
    for turn in range(rounds):
        for name, (platform, apps) in reversed(platforms.items()) if turn % 2 else platforms.items():
            code = _READING.replace("IDS", repr(_spread(apps, 200)))
            found[name].append(float(platform.manage(code).split()[-1]))
    return found


def _spread(apps: range, count: int) -> list[int]:
    return [apps[i] for i in range(0, len(apps), max(1, len(apps) // count))]


def _seed(platform: Platform, count: int) -> range:
    """So many apps, of which the first has 100 instances."""
    code = (
        f"from bench import seed\nfirst, last = seed.apps({count})\nseed.instances([(first, 99)])\nprint(first, last)"
    )
    first, last = (int(word) for word in platform.manage(code).split()[-2:])
    return range(first, last + 1)


if __name__ == "__main__":
    main()
