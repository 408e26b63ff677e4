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
FLOOR, _SMALL = "empty view", f"metrics with {_FEW} apps"
_GOALS = {"metrics": 0.5, "info": 0.2, "100 instances": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apps", type=int, default=10_000)
    options = parser.parse_args()
    with Platform() as small, Platform() as large:
        large.start_floor()
        few, many = _seed(small, _FEW), _seed(large, options.apps)
        rounds = measure(small, large, few, many, options)
    rows = []
    for name in rounds.results:
        ratio = rounds.ratio(name, FLOOR)
        goal = verdict(ratio, _GOALS[name]) if name in _GOALS else ""
        rows.append([name, f"{rounds.per_s(name):.0f}", rounds.latency(name), f"{ratio:.2f}", goal])
    lines = table([f"with {options.apps} apps", "requests/s", "p50 / p99 ms", "of the empty view", "goal"], rows)
    grown = rounds.ratio("metrics", _SMALL)
    lines += ["", f"metrics with {options.apps} apps / with {_FEW}: {grown:.2f} {verdict(grown, 0.85)}"]
    report("API: polling against an empty view", lines)


def measure(small: Platform, large: Platform, few: range, many: range, options: argparse.Namespace) -> Rounds:
    """All candidates in turn, on both platforms; of as many apps on the large one as there are on the small one."""
    some = [many[i] for i in range(0, len(many), max(1, len(many) // len(few)))]

    def ask(port: int, paths: list[str], headers: dict[str, str]) -> Callable[[], Measured]:
        requests = [load.request_of("GET", path, headers) for path in paths]
        return lambda: load.run(port, requests, connections=CONNECTIONS, seconds=options.seconds).check(200)

    candidates = {
        FLOOR: ask(large.floor_port, ["/empty"], {}),
        "one row, bare": ask(large.floor_port, ["/one"], {}),
        "metrics": ask(large.port, [f"/app/{n}/metrics" for n in some], large.headers),
        _SMALL: ask(small.port, [f"/app/{n}/metrics" for n in few], small.headers),
        "info": ask(large.port, [f"/app/{n}/info" for n in some], large.headers),
        "100 instances": ask(large.port, [f"/app/{many[0]}/instances?limit=100"], large.headers),
    }
    return Rounds(candidates, options.rounds)


def _seed(platform: Platform, count: int) -> range:
    """So many apps, of which the first has 100 instances."""
    code = (
        f"from bench import seed\nfirst, last = seed.apps({count})\nseed.instances([(first, 99)])\nprint(first, last)"
    )
    first, last = (int(word) for word in platform.manage(code).split()[-2:])
    return range(first, last + 1)


if __name__ == "__main__":
    main()
