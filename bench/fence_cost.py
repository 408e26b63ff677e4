"""The fence's price: one gate transaction with and without it, in turn, on one connection to a durable MariaDB.

Without: the UPDATE of the fence is left out of the packet, and the events carry a number counted here; everything else
is the same. Runs inside a platform's Django, with no process of the platform beside it.
"""

from __future__ import annotations

import json
import statistics

from bench.harness import Platform
from bench.rounds import verdict

_GOAL = 1.15
_CODE = """
import itertools, json, statistics, time
from types import SimpleNamespace
from django.db.models import F
from apps.models import App
from consensus import fence, gate
from consensus.fake import FakeLease
from omni.kernel import keys, pipeline
from omni.kernel.context import system
from omni.testing.factories import make_app
from django.conf import settings

claim = fence.claim(keys.cluster_id(settings.CONFIG), "bench")
gate.configure(FakeLease(epoch=claim.epoch), "bench")
app = make_app()
numbers = itertools.count(1 << 40)
real, index, at = pipeline.run, fence.index_sql, fence.write_index

def verb(tx):
    App.objects.filter(pk=app.pk).update(revision=F("revision") + 1, description=str(time.time()))
    tx.record("app.updated", "app", app.pk, org_id=app.org_id, app_id=app.pk, change={"fields": ["description"]})

def without(connection, statements):
    kept = [one for one in statements if not one.sql.startswith("UPDATE consensus_fence")]
    assert len(kept) == len(statements) - 1
    return real(connection, kept)

def once(fenced):
    if fenced:
        gate.pipeline, fence.index_sql, fence.write_index = SimpleNamespace(run=real), index, at
    else:
        gate.pipeline, fence.write_index = SimpleNamespace(run=without), lambda *_: 0
        fence.index_sql = lambda _connection: str(next(numbers))
    begun = time.perf_counter()
    gate.run(verb, actor=system("bench"), cause="bench")
    return time.perf_counter() - begun

for _ in range(100):
    once(True), once(False)
rounds = []
for _ in range(ROUNDS):
    times = {True: [], False: []}
    for _ in range(PAIRS):
        for fenced in (True, False):
            times[fenced].append(once(fenced))
    rounds.append([statistics.median(times[True]) * 1000, statistics.median(times[False]) * 1000])
print(json.dumps(rounds))
"""


def fence_ratio(rounds: int = 9, pairs: int = 150) -> str:
    """The figure, in words."""
    with Platform(database="mariadb", run=()) as platform:
        code = _CODE.replace("ROUNDS", str(rounds)).replace("PAIRS", str(pairs))
        found = json.loads(platform.manage(code).strip().splitlines()[-1])
    ratio = statistics.median(fenced / bare for fenced, bare in found)
    fenced, bare = (statistics.median(column) for column in zip(*found, strict=True))
    return f"{fenced:.2f} ms against {bare:.2f} ms; ratio {ratio:.2f} {verdict(ratio, _GOAL, at_most=True)}"


if __name__ == "__main__":
    print(fence_ratio())
