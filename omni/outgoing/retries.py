"""When a delivery is tried again, and when it is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Doubles from `first_s` up to `longest_s`, for at most `attempts` tries. Seconds."""

    first_s: float = 5.0
    longest_s: float = 3600.0
    attempts: int = 12  # with the defaults the last one is about four and a half hours after the first

    def pause_s(self, attempt: int, chance: float) -> float | None:
        """Seconds after failed try number `attempt` (from 1) until the next; None: given up.

        `chance` from 0 to 1 spreads it over ± a fifth, so that what failed together does not come back together.
        """
        if attempt >= self.attempts:
            return None
        pause = min(self.first_s * 2.0 ** min(attempt - 1, 60), self.longest_s)
        return float(pause * (0.8 + 0.4 * min(max(chance, 0.0), 1.0)))


WEBHOOKS = Schedule()
