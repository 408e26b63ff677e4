"""How long to wait before the next try.

Pure: the random part is handed in. Used for crashed instances and for every call that is repeated.
"""

from __future__ import annotations

FIRST_S = 1.0
LONGEST_S = 300.0


def delay(failures: int, jitter: float, first: float = FIRST_S, longest: float = LONGEST_S) -> float:
    """Seconds before try number `failures + 1`: doubles each time, `jitter` in [0, 1) spreads it by a quarter.

    Never below `first` nor above `longest`, so that many instances that crashed together come back apart.
    """
    exponent = min(max(failures - 1, 0), 30)
    base = min(longest, first * 2.0**exponent)
    return min(longest, max(first, base * (0.75 + 0.5 * jitter)))
