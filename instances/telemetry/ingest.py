"""What agents and ingresses send: log lines, samples, request counts. Written in bulk, outside the gate.

Owns the rule that a repeated batch changes nothing (`LogOffset`, `RequestOffset`), and that lines and figures of
instances that the platform does not know (any more) are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from django.db import transaction

from agent.protocol import HostSample, LogAnswer, Sample
from agent.routing import RequestCount, RequestCounts
from instances.models import Instance
from instances.telemetry import arrivals
from instances.telemetry import statements as sql
from omni.kernel import clock, measures
from omni.kernel.errors import Malformed
from omni.kernel.tables import TELEMETRY

LINE_MAX = 16 * 1024
_LINE_COLUMNS = ("instance_id", "seq", "app_id", "at_us", "stream", "line")
_FIGURES = ("cpu_percent", "memory_bytes", "network_rx_bytes", "network_tx_bytes")
_SOURCE_MAX = 32
DROPPED_MARK = "[omni] "  # how the nodes' own lines begin (`agent.logs.lines`)
_DROPPED = re.compile(r"\[omni\] (\d{1,12}) lines dropped")
MEASURED_S = 5  # the step that a sample as taken stands for


def store_logs(node: str, batches: Sequence[Mapping[str, Any]]) -> LogAnswer:
    """Insert what is new of each batch; answers how far each instance's log is stored. One transaction."""
    known = known_instances(node, {_int(batch, "instance_id") for batch in batches})
    unknown = sorted({batch["instance_id"] for batch in batches} - known.keys())
    mine = [batch for batch in batches if batch["instance_id"] in known]
    if not mine:
        return LogAnswer({}, unknown)
    ids = sorted({batch["instance_id"] for batch in mine})
    with transaction.atomic(using=TELEMETRY):
        offsets = _lock_offsets(node, known, ids)
        before = dict(offsets)
        rows: list[tuple[Any, ...]] = []
        for batch in mine:
            _take(batch, known[batch["instance_id"]], offsets, rows)
        sql.insert("instances_logline", _LINE_COLUMNS, rows, again="ignore")
        grown = [one for one in ids if offsets[one] != before[one]]
        for instance_id in grown:
            sql.execute(
                "UPDATE instances_logoffset SET last_seq = %s, node = %s WHERE instance_id = %s",
                [offsets[instance_id], node, instance_id],
            )
        arrivals.number(known, [(one, before[one] + 1, offsets[one]) for one in grown])
    _measure_lines(rows)
    return LogAnswer({str(instance_id): offsets[instance_id] for instance_id in ids}, unknown)


def _measure_lines(rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    _measure("logs", min(row[3] for row in rows), len(rows))
    dropped = sum(dropped_lines(row[5]) for row in rows if row[5].startswith(DROPPED_MARK))
    if dropped:
        measures.log_lines_dropped.inc(dropped)


def _measure(kind: str, oldest_us: int, count: int) -> None:
    measures.ingest_lag_seconds.labels(kind).observe(max(0.0, clock.to_us(clock.now()) / 1e6 - oldest_us / 1e6))
    measures.ingested.labels(kind).inc(count)


def dropped_lines(line: str) -> int:
    """How many lines a node's note about dropped lines speaks of; an app that imitates the note fools a counter."""
    found = _DROPPED.match(line)
    return int(found[1]) if found is not None else 0


def _lock_offsets(node: str, known: Mapping[int, int], ids: list[int]) -> dict[int, int]:
    """The highest stored sequence of each; the rows stay locked, so that two posts of one instance wait in turn."""
    new = [(instance_id, known[instance_id], node, 0, 1) for instance_id in ids]
    sql.insert("instances_logoffset", ("instance_id", "app_id", "node", "last_seq", "first_seq"), new, again="ignore")
    lock = " FOR UPDATE" if sql.is_mysql() else ""
    found = sql.select(
        f"SELECT instance_id, last_seq FROM instances_logoffset WHERE instance_id IN ({sql.marks(ids)})"  # noqa: S608
        f" ORDER BY instance_id{lock}",
        ids,
    )
    return {int(instance_id): int(last) for instance_id, last in found}


def _take(batch: Mapping[str, Any], app_id: int, offsets: dict[int, int], rows: list[tuple[Any, ...]]) -> None:
    """The lines of a batch that are not stored yet; none when there is a gap (the answer says where to go on)."""
    instance_id, first, lines = batch["instance_id"], _int(batch, "first_seq"), batch.get("lines")
    if not isinstance(lines, list) or first < 1:
        raise Malformed("A log batch has first_seq (from 1) and lines.")
    last = offsets[instance_id]
    if first > last + 1:
        return
    try:
        rows += [
            (instance_id, seq, app_id, int(line[0]), 1 if line[1] else 0, line[2][:LINE_MAX])
            for seq, line in enumerate(lines[last + 1 - first :], last + 1)
        ]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise Malformed("A log line is [microseconds, stream, text].") from error
    offsets[instance_id] = max(last, first + len(lines) - 1)


def known_instances(node: str, ids: Iterable[int]) -> dict[int, int]:
    """Instance → app, for those that exist and belong to the node."""
    rows = Instance.objects.filter(id__in=list(ids), node__name=node).values_list("id", "app_id")
    return dict(rows)


def store_samples(node: str, samples: Sequence[Sample], host: HostSample | None) -> None:
    known = known_instances(node, {sample.instance_id for sample in samples})
    mine = [sample for sample in samples if sample.instance_id in known]
    with transaction.atomic(using=TELEMETRY):
        if mine:
            _insert_samples(mine, known)
        if host is not None:
            columns = ("node", "at_us", "cpu_percent", "memory_used_bytes", "memory_total_bytes", "disk_free_bytes",
                       "load_1m")  # fmt: skip
            sql.insert("instances_hostsample", columns, [(node, *(getattr(host, name) for name in columns[1:]))])
    if mine:
        _measure("samples", min(sample.at_us for sample in mine), len(mine))


def _insert_samples(mine: Sequence[Sample], known: Mapping[int, int]) -> None:
    sql.insert(
        "instances_sample",
        ("instance_id", "step_s", "at_us", "app_id", *_FIGURES, "cpu_percent_max", "memory_bytes_max"),
        [
            (s.instance_id, MEASURED_S, s.at_us, known[s.instance_id], *(getattr(s, name) for name in _FIGURES),
             s.cpu_percent, s.memory_bytes)
            for s in mine
        ],
    )  # fmt: skip
    newest = {s.instance_id: s for s in sorted(mine, key=lambda s: s.at_us)}
    columns = ("instance_id", "app_id", "at_us", "cpu_percent", "memory_bytes", "memory_limit_bytes",
               "network_rx_bytes", "network_tx_bytes", "restarts", "uptime_s")  # fmt: skip
    rows = [(s.instance_id, known[s.instance_id], *(getattr(s, c) for c in columns[2:])) for s in newest.values()]
    sql.insert("instances_latestsample", columns, sorted(rows), again="replace")


def store_requests(node: str, message: RequestCounts) -> None:
    """Insert the rows that are not stored yet. One transaction: a row and its number are there together or not."""
    if not message.source:
        _insert_requests(message.rows)
        return
    if message.first_seq < 1 or len(message.source) > _SOURCE_MAX:
        raise Malformed("Request counts have first_seq (from 1) and a short source.")
    with transaction.atomic(using=TELEMETRY):
        last = _lock_request_offset(node, message.source)
        _insert_requests(message.rows[max(0, last + 1 - message.first_seq) :])
        newest = message.first_seq + len(message.rows) - 1
        if newest > last:
            sql.execute(
                "UPDATE instances_requestoffset SET last_seq = %s, at_us = %s WHERE node = %s AND source = %s",
                [newest, clock.to_us(clock.now()), node, message.source],
            )


def _lock_request_offset(node: str, source: str) -> int:
    """The highest stored number; the row stays locked, so that two posts of the same rows wait in turn."""
    columns = ("node", "source", "last_seq", "at_us")
    sql.insert("instances_requestoffset", columns, [(node, source, 0, clock.to_us(clock.now()))], again="ignore")
    lock = " FOR UPDATE" if sql.is_mysql() else ""
    found = sql.select(
        f"SELECT last_seq FROM instances_requestoffset WHERE node = %s AND source = %s{lock}",  # noqa: S608
        [node, source],
    )
    return int(found[0][0])


def _insert_requests(counts: Sequence[RequestCount]) -> None:
    rows = [
        (c.app_id, c.instance_id, c.at_us, c.window_s, c.requests, c.failed, c.refused, c.retried,
         orjson.dumps(c.histogram).decode())
        for c in counts
    ]  # fmt: skip
    columns = ("app_id", "instance_id", "at_us", "window_s", "requests", "failed", "refused", "retried", "histogram")
    sql.insert("instances_requestsample", columns, rows, again="error")
    if rows:
        _measure("requests", min(row[2] for row in rows), len(rows))


def _int(batch: Mapping[str, Any], name: str) -> int:
    value = batch.get(name) if isinstance(batch, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed(f"A log batch has a whole number {name}.")
    return value
