"""What logs cost: `python -m bench.logs [--lines 200000] [--depth 1000000]`.

Reading: a page at depth 1,000,000 against the first page. Ingest: an app prints lines as fast as it can, which travel
file → agent → API → MariaDB; the floor is a bulk INSERT of as many rows of the same size, by the same batches.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from collections.abc import Callable

import httpx

from bench import apps, load
from bench.harness import Platform, report, table, wait_for
from bench.load import Measured
from bench.rounds import Rounds, verdict

_FLOOD = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
text = "x" * 80
while True:
    caller = listener.accept()[0]
    if caller.recv(2) == b"go":  # a health check says nothing
        break
for number in range(LINES):
    sys.stdout.write(f"line {number:09d} {text}\\n")
sys.stdout.flush()
while True:
    listener.accept()[0].close()
"""
_BULK = """
import time
from django.db import connections, transaction
connection = connections["telemetry"]
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS bench_logline LIKE instances_logline")
    cursor.execute("TRUNCATE bench_logline")
sql = "INSERT INTO bench_logline (instance_id, seq, app_id, at_us, stream, line) VALUES (%s, %s, %s, %s, %s, %s)"
started = time.perf_counter()
for first in range(0, LINES, BATCH):
    rows = [(1, first + i, 1, 1700000000000000 + first + i, 0, "TEXT") for i in range(BATCH)]
    with transaction.atomic(using="telemetry"), connection.cursor() as cursor:
        cursor.executemany(sql, rows)
print(LINES / (time.perf_counter() - started))
"""
_LINE = "line 000000000 " + "x" * 80
_BATCH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.logs")
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--depth", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with Platform(run=("web", "daemon", "agent", "broker", "worker")) as platform:
        with platform.client() as client:
            ingest, stored = flood(platform, client, options.lines, options.instances)
            floors = [bulk(platform, options.lines) for _ in range(3)]
        pages = read(platform, options.depth, options.seconds)
    floor = statistics.median(floors)
    share, deep = ingest / floor, 1 / pages.ratio("deep page", "first page")
    deep_page = f"{pages.per_s('deep page'):.0f}/s, p50/p99 {pages.latency('deep page')} ms"
    rows = [
        ["ingest: file → agent → API → MariaDB", f"{ingest:.0f} lines/s", f"{share:.2f} {verdict(share, 0.2)}"],
        ["floor: bulk INSERT", f"{floor:.0f} lines/s", ""],
        ["first page of 100", f"{pages.per_s('first page'):.0f}/s, p50/p99 {pages.latency('first page')} ms", ""],
        [f"page at depth {options.depth:,}", deep_page, f"{deep:.2f} {verdict(deep, 1.3, at_most=True)}"],
    ]
    lines = table(["what", "measured", "ratio"], rows)
    lines += [
        "",
        f"{stored} of {options.lines} lines were stored{'' if stored == options.lines else ' (LOSS)'}",
    ]
    report("Logs: ingest against bulk INSERT, deep pages against the first", lines)


def flood(platform: Platform, client: httpx.Client, lines: int, instances: int) -> tuple[float, int]:
    """(lines/s from the moment when all were told to print to the last row's arrival, rows stored).

    Several instances, because each may send a burst of 60,000 lines and then 3,000 a second.
    """
    program = _FLOOD.replace("LINES", str(lines // instances)).encode()
    apps.create(client, "flood", instances=instances)
    archive = apps.pack({"Procfile": b"web: exec python flood.py\n", "flood.py": program})
    apps.upload(client, "flood", archive, deploy=False)
    apps.ask(client.post("/app/flood/release/1/deploy"), 202)
    apps.wait_healthy(client, "flood", instances)
    items = apps.ask(client.get("/app/flood/instances"), 200)["items"]
    started = time.monotonic()
    for item in items:
        host, _, port = item["address"].rpartition(":")
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"go")
    whole = f"SELECT COUNT(*) FROM instances_logoffset WHERE last_seq >= {lines // instances}"  # noqa: S608
    wait_for(lambda: int(platform.sql(whole)) == instances, "the last line", within_s=600, pace_s=0.1)
    took = time.monotonic() - started
    stored = int(platform.sql("SELECT COUNT(*) FROM instances_logline"))
    apps.delete(client, "flood")
    return lines / took, stored


def bulk(platform: Platform, lines: int) -> float:
    """Rows/s of executemany with the same columns and batches, one commit a batch, on the telemetry connection."""
    code = _BULK.replace("LINES", str(lines)).replace("BATCH", str(_BATCH)).replace("TEXT", _LINE)
    return float(platform.manage(code).split()[-1])


def read(platform: Platform, depth: int, seconds: float) -> Rounds:
    """Pages of 100 of one instance that has `depth` lines and a few more."""
    code = "from bench import seed\nfirst, _ = seed.apps(1)\nfrom instances.models import Instance\n"
    code += "print(first, Instance.objects.get(app_id=first).pk)"
    app, instance = (int(word) for word in platform.manage(code).split()[-2:])
    total = depth + 1000
    values = f"{instance}, seq, {app}, 1700000000000000 + seq * 100, 0, CONCAT('line ', seq, ' ', REPEAT('x', 80))"
    columns = "instance_id, seq, app_id, at_us, stream, line"
    platform.sql(f"INSERT INTO instances_logline ({columns}) SELECT {values} FROM seq_1_to_{total}")  # noqa: S608
    node = "INSERT INTO instances_logoffset (instance_id, app_id, node, last_seq, first_seq) VALUES"
    platform.sql(f"{node} ({instance}, {app}, 'bench-1', {total}, 1)")
    path = f"/app/{app}/instances/{instance}/logs"
    with platform.client() as client:
        tail = apps.ask(client.get(path, params={"tail": 500}), 200)["items"]
        cursor = tail[0]["cursor"]
        shown = apps.ask(client.get(path, params={"limit": 100, "cursor": cursor}), 200)["items"]
        if len(shown) != 100:
            raise RuntimeError(f"the deep page has {len(shown)} lines")

    def ask(url: str) -> Callable[[], Measured]:
        request = load.request_of("GET", url, platform.headers)
        return lambda: load.run(platform.port, [request], connections=4, seconds=seconds).check(200)

    return Rounds({"first page": ask(f"{path}?limit=100"), "deep page": ask(f"{path}?limit=100&cursor={cursor}")}, 3)


if __name__ == "__main__":
    main()
