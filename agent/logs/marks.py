"""When the lines of a file were written, as far as somebody looked.

Owns a list of places: everything before a place had been written by then. So a line that waits for hours, because the
control plane is away or its app writes too much, still carries its own time. Kept in memory: after a restart of the
agent the lines that wait carry the time of its first look. Pure but for the list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

MOST = 2400  # ten minutes of looks, four a second; older ones are thinned, which makes times later, never earlier


class Marks:
    def __init__(self) -> None:
        self._places: list[int] = []
        self._times: list[int] = []

    def note(self, size: int, at_us: int) -> None:
        """The file is `size` bytes long now; one that became shorter was emptied."""
        if self._places and size < self._places[-1]:
            self._places, self._times = [], []
        if size > (self._places[-1] if self._places else 0):
            self._places.append(size)
            self._times.append(at_us)

    def forget(self, before: int, keep: int) -> None:
        """Nothing before that place is asked for again. What lies up to `keep` is on its way: not thinned."""
        first = bisect_left(self._places, before + 1)
        del self._places[:first], self._times[:first]
        if len(self._places) > MOST:
            begin = bisect_left(self._places, keep + 1)
            del self._places[begin:-1:2], self._times[begin:-1:2]

    def times(self, start: int, end: int, lines: Sequence[str], now_us: int) -> list[int]:
        """For each line of the bytes [start, end) when it was written, ascending."""
        at = bisect_left(self._places, start + 1)
        if at == len(self._places) or self._places[at] >= end:
            return [self._times[at] if at < len(self._times) else now_us] * len(lines)
        found, place = [], float(start)
        share = (end - start) / max(1, sum(map(len, lines)) + len(lines))  # bytes a character
        for line in lines:
            place += (len(line) + 1) * share
            while at < len(self._places) and self._places[at] < place - 0.5:
                at += 1
            found.append(self._times[at] if at < len(self._times) else now_us)
        return found
