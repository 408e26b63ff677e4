"""Latency quantiles from bucket counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.routing import LATENCY_BUCKETS_MS


def total(histograms: Iterable[Sequence[int]]) -> list[int]:
    counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
    for histogram in histograms:
        for i, count in enumerate(histogram[: len(counts)]):
            counts[i] += count
    return counts


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Interpolated within its bucket; the highest bound for what lies above all bounds; None without requests."""
    everything = sum(counts)
    if not everything:
        return None
    rank, below = share * everything, 0
    for i, count in enumerate(counts):
        if count and below + count >= rank:
            if i >= len(LATENCY_BUCKETS_MS):
                break
            low = LATENCY_BUCKETS_MS[i - 1] if i else 0.0
            return round(low + (LATENCY_BUCKETS_MS[i] - low) * (rank - below) / count, 3)
        below += count
    return float(LATENCY_BUCKETS_MS[-1])


def response_ms(histograms: Iterable[Sequence[int]]) -> dict[str, float | None]:
    counts = total(histograms)
    return {"p50": quantile(counts, 0.5), "p95": quantile(counts, 0.95), "p99": quantile(counts, 0.99)}
