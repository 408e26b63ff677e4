"""What builds print: telemetry, kept by build, attempt and sequence, bound in size.

Owns `BuildLogLine` rows. A repeated batch changes nothing; of a log beyond `limits.build_log_bytes` the first half and
the last half are kept and the middle is left out, with a line that says so. Never in a transaction with anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Max
from django.db.models.functions import Length

from omni.kernel import clock
from releases.models import BuildLogLine

STREAMS = ("stdout", "stderr", "system")
LINE_MAX = 16 * 1024
BATCH_MAX = 5000
_ATTEMPT_SHIFT = 32  # a stored sequence is `attempt << 32 | sequence within the attempt`
_SEQ_MASK = (1 << _ATTEMPT_SHIFT) - 1
_ROW_OVERHEAD = 32
_INSERT_BATCH = 500
_CACHED_BUILDS = 1000


@dataclass(slots=True)
class _Kept:
    """How much of one build's log is stored. Rebuilt from the rows when another process wrote in between."""

    last: int = 0
    head_bytes: int = 0
    head_end: int | None = None  # the last sequence of the first half, once that is full
    tail_bytes: int = 0

    def add(self, seq: int, size: int, half: int) -> None:
        self.last = seq
        if self.head_end is not None:
            self.tail_bytes += size
            return
        self.head_bytes += size
        if self.head_bytes >= half:
            self.head_end = seq


_kept: dict[int, _Kept] = {}


def append(build_id: int, attempt: int, first_seq: int, lines: Sequence[tuple[int, int, str]]) -> int:
    """Store `(at_us, stream, text)` lines; returns the highest sequence of the attempt that is stored.

    A batch may be repeated, whole or in part.
    """
    half = settings.CONFIG.limits.build_log_bytes // 2
    base = attempt << _ATTEMPT_SHIFT
    kept = _state(build_id, half)
    rows = [
        BuildLogLine(build_id=build_id, seq=base + first_seq + i, at_us=at, stream=stream, line=_bounded(text))
        for i, (at, stream, text) in enumerate(lines)
    ]
    fresh = [row for row in rows if row.seq > kept.last]
    if fresh:
        BuildLogLine.objects.bulk_create(fresh, batch_size=_INSERT_BATCH, ignore_conflicts=True)
        for row in fresh:
            kept.add(row.seq, len(row.line) + _ROW_OVERHEAD, half)
        if kept.tail_bytes > half:
            _leave_out(build_id, kept, half)
    return kept.last - base if kept.last >> _ATTEMPT_SHIFT == attempt else first_seq + len(lines) - 1


def note(build_id: int, attempt: int, text: str) -> None:
    """A line of the platform's own, after all that the attempt wrote."""
    seq = attempt << _ATTEMPT_SHIFT | _SEQ_MASK
    row = BuildLogLine(build_id=build_id, seq=seq, at_us=clock.to_us(clock.now()), stream=2, line=text)
    BuildLogLine.objects.bulk_create([row], ignore_conflicts=True)


def forget(build_ids: Iterable[int]) -> None:
    """Delete the logs of builds that are gone."""
    for build_id in build_ids:
        _kept.pop(build_id, None)
        BuildLogLine.objects.filter(build_id=build_id).delete()


def forward(build_id: int, after: int, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` lines after the stored sequence `after`, oldest first, with a line where some were left out."""
    rows = BuildLogLine.objects.filter(build_id=build_id, seq__gt=after).order_by("seq")
    return _shown(list(rows.values_list("seq", "at_us", "stream", "line")[:limit]), after)


def backward(build_id: int, before: int | None, limit: int) -> list[dict[str, Any]]:
    """The last `limit` lines (before a stored sequence), oldest first."""
    rows = BuildLogLine.objects.filter(build_id=build_id)
    if before is not None:
        rows = rows.filter(seq__lt=before)
    found = list(rows.order_by("-seq").values_list("seq", "at_us", "stream", "line")[:limit])
    found.reverse()
    return _shown(found, found[0][0] - 1 if found else 0)


def has_before(build_id: int, seq: int) -> bool:
    return BuildLogLine.objects.filter(build_id=build_id, seq__lt=seq).exists()


def _shown(rows: list[tuple[int, int, int, str]], after: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for seq, at_us, stream, line in rows:
        attempt, number = seq >> _ATTEMPT_SHIFT, seq & _SEQ_MASK
        missing = seq - after - 1
        if missing and number != _SEQ_MASK and after >> _ATTEMPT_SHIFT == attempt:
            text = f"… {missing} lines left out here, because the log is longer than is kept …"
            gap = {"seq": seq - 1, "at": clock.from_us(at_us), "attempt": attempt, "stream": "system", "line": text}
            shown.append({**gap, "gap": True})
        name = STREAMS[stream] if stream < len(STREAMS) else "system"
        shown.append({"seq": seq, "at": clock.from_us(at_us), "attempt": attempt, "stream": name, "line": line})
        after = seq
    return shown


def _bounded(text: str) -> str:
    return text if len(text) <= LINE_MAX else text[:LINE_MAX] + "…"


def _state(build_id: int, half: int) -> _Kept:
    last = BuildLogLine.objects.filter(build_id=build_id).aggregate(last=Max("seq"))["last"] or 0
    known = _kept.get(build_id)
    if known is not None and known.last == last:
        return known
    kept = _Kept()
    sizes = BuildLogLine.objects.filter(build_id=build_id).order_by("seq").annotate(size=Length("line"))
    for seq, size in sizes.values_list("seq", "size").iterator(chunk_size=5000):
        kept.add(seq, size + _ROW_OVERHEAD, half)
    if len(_kept) >= _CACHED_BUILDS:
        _kept.clear()
    _kept[build_id] = kept
    return kept


def _leave_out(build_id: int, kept: _Kept, half: int) -> None:
    """Drop the oldest lines of the second half until it fits."""
    tail = BuildLogLine.objects.filter(build_id=build_id, seq__gt=kept.head_end).order_by("seq")
    cut = None
    for seq, size in tail.annotate(size=Length("line")).values_list("seq", "size").iterator(chunk_size=2000):
        if kept.tail_bytes <= half * 0.9:  # some room, so that not every batch has to cut
            break
        cut = seq
        kept.tail_bytes -= size + _ROW_OVERHEAD
    if cut is not None:
        BuildLogLine.objects.filter(build_id=build_id, seq__gt=kept.head_end, seq__lte=cut).delete()
