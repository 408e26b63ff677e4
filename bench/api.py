"""What polling costs: `python -m bench.api [--seconds 3] [--rounds 3] [--apps 10000]`.

The floor is an empty Django view behind the same front, with as many workers and threads. `metrics`, `info` and the
first page of 100 instances are measured against it, with 10 apps in the database and with many.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bench import load
from bench.harness import Platform, report, table
from bench.load import Measured
from bench.rounds import Rounds, verdict

CONNECTIONS = 8
_FEW = 10
_GOALS = {"metrics": 0.5, "info": 0.2, "100 instances": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apps", type=int, default=10_000)
    options = parser.parse_args()
    with Platform() as platform:
        platform.start_floor()
        first = _seed(platform, _FEW)
        few = measure(platform, first, first + _FEW - 1, options.seconds, options.rounds)
        _seed(platform, options.apps - _FEW)
        many = measure(platform, first, first + options.apps - 1, options.seconds, options.rounds)
    lines = [*_table(few, f"{_FEW} apps"), "", *_table(many, f"{options.apps} apps")]
    grown = many.ratio("metrics", "empty view") / few.ratio("metrics", "empty view")
    lines += ["", f"metrics with {options.apps} apps / with {_FEW}: {grown:.2f} {verdict(grown, 0.85)}"]
    report("API: polling against an empty view", lines)


def measure(platform: Platform, first: int, last: int, seconds: float, rounds: int) -> Rounds:
    """Metrics of all apps in turn, so that no one row is hot."""
    step = max(1, (last - first + 1) // 100)
    ids = range(first, last + 1, step)
    paths = {
        "metrics": [f"/app/{n}/metrics" for n in ids],
        "info": [f"/app/{n}/info" for n in ids],
        "100 instances": [f"/app/{first}/instances?limit=100"],
    }

    def ask(port: int, asked: list[str], headers: dict[str, str]) -> Callable[[], Measured]:
        requests = [load.request_of("GET", path, headers) for path in asked]
        return lambda: load.run(port, requests, connections=CONNECTIONS, seconds=seconds).check(200)

    candidates = {
        "empty view": ask(platform.floor_port, ["/empty"], {}),
        "one row, bare": ask(platform.floor_port, ["/one"], {}),
        **{name: ask(platform.port, asked, platform.headers) for name, asked in paths.items()},
    }
    return Rounds(candidates, rounds)


def _seed(platform: Platform, count: int) -> int:
    """`count` more apps; the first ever has 100 instances. Returns the first new id."""
    code = f"from bench import seed\nfirst, last = seed.apps({count})\n"
    if count == _FEW:
        code += "seed.instances([(first, 99)])\n"
    return int(platform.manage(code + "print(first)").split()[-1])


def _table(rounds: Rounds, title: str) -> list[str]:
    rows = []
    for name in rounds.results:
        ratio = rounds.ratio(name, "empty view")
        goal = verdict(ratio, _GOALS[name]) if name in _GOALS else ""
        rows.append([name, f"{rounds.per_s(name):.0f}", rounds.latency(name), f"{ratio:.2f}", goal])
    return table([title, "requests/s", "p50 / p99 ms", "of the empty view", "goal"], rows)


if __name__ == "__main__":
    main()
