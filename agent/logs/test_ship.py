"""One app that writes far too much: it is slowed and told how many lines are missing, and nobody else notices."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent import clock
from agent.logs.ship import LOOK_S, POST_BYTES, Shipper
from agent.logs.tail import CHUNK, Tail

RATE, ALLOWED, BURST = 50_000, 3_000, 10_000
_NOTE = re.compile(r"\[omni\] (\d+) lines dropped")


class Receiver:
    """The control plane, as far as lines go: stores what comes, in its order."""

    def __init__(self) -> None:
        self.lines: dict[int, list[str]] = {}
        self.largest = 0

    async def post(self, path: str, body: bytes, timeout_s: float) -> dict[str, Any]:
        assert path == "/agent/logs"
        self.largest = max(self.largest, len(body))
        acked = {}
        for batch in orjson.loads(body)["batches"]:
            kept = self.lines.setdefault(batch["instance_id"], [])
            assert batch["first_seq"] == len(kept) + 1, "no gap, no repeat"
            kept += [text for _, _, text in batch["lines"]]
            acked[str(batch["instance_id"])] = len(kept)
        return {"acked": acked}


def test_a_flood_is_slowed_and_counted_while_the_neighbours_lines_go_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, receiver = [1000.0], Receiver()
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    shipper = Shipper("n", receiver, ALLOWED, BURST)  # type: ignore[arg-type]
    folders = {number: tmp_path / str(number) for number in (1, 2)}
    for number, folder in folders.items():
        folder.mkdir()
        (folder / "stdout.log").touch()
        shipper.add(number, 1, Tail(folder, 1 << 20), lambda: None)
    seconds, written, each = 6, 0, int(RATE * LOOK_S)
    for look in range(int(seconds / LOOK_S)):
        with (folders[1] / "stdout.log").open("a") as loud, (folders[2] / "stdout.log").open("a") as neighbour:
            loud.writelines(f"line {number}\n" for number in range(written + 1, written + each + 1))
            neighbour.write(f"tick {look}\n")
        written += each
        while asyncio.run(shipper.round()):
            pass
        assert receiver.lines[2][-1] == f"tick {look}", "the neighbour waits for nobody"
        now[0] += LOOK_S
    assert len(receiver.lines[1]) <= BURST + ALLOWED * seconds + 100, "held to its rate"
    assert receiver.largest <= POST_BYTES + 2 * CHUNK
    told, missing = counted(receiver.lines[1])
    assert told == missing > 0


class Slow(Receiver):
    """One that stores so many lines a second, and no more."""

    def __init__(self, now: list[float], lines_per_s: float) -> None:
        super().__init__()
        self._now, self._speed = now, lines_per_s
        self.late: list[float] = []

    async def post(self, path: str, body: bytes, timeout_s: float) -> dict[str, Any]:
        batches = orjson.loads(body)["batches"]
        self._now[0] += 0.02 + sum(len(batch["lines"]) for batch in batches) / self._speed
        ticks = [float(line[2].split()[1]) for batch in batches if batch["instance_id"] == 2 for line in batch["lines"]]
        self.late += [self._now[0] - written for written in ticks]
        return await super().post(path, body, timeout_s)


@pytest.mark.parametrize("lines_per_s", [2_000, 100_000])
def test_where_storing_is_slow_the_posts_of_a_loud_one_are_short_and_its_neighbour_does_not_wait_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines_per_s: int
) -> None:
    now = [1000.0]
    receiver = Slow(now, lines_per_s)
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    shipper = Shipper("n", receiver, ALLOWED, BURST)  # type: ignore[arg-type]
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stdout.log").touch()
        shipper.add(number, 1, Tail(tmp_path / str(number), 1 << 20), lambda: None)
    written, ticks = 0, 0
    with (tmp_path / "1/stdout.log").open("a") as loud, (tmp_path / "2/stdout.log").open("a") as neighbour:
        while now[0] < 1012:
            due = int((now[0] - 1000) * RATE / 10)
            loud.writelines(f"line {number}\n" for number in range(written, due))
            written = due
            while 1000 + ticks / 10 <= now[0]:
                neighbour.write(f"tick {1000 + ticks / 10}\n")
                ticks += 1
            loud.flush()
            neighbour.flush()
            if not asyncio.run(shipper.round()):
                now[0] += LOOK_S
    late = sorted(receiver.late)
    assert late[int(len(late) * 0.95)] < 1.0 + 500 / lines_per_s
    assert len(receiver.lines[1]) > 12 * min(ALLOWED, lines_per_s) * 0.7, "and no less is stored for it"


def counted(lines: list[str]) -> tuple[int, int]:
    """(lines that are said to be dropped, lines that are missing before the last one)."""
    told = last = missing = 0
    for line in lines:
        if note := _NOTE.match(line):
            told += int(note[1])
        else:
            number = int(line.split()[1])
            missing += number - last - 1
            last = number
            assert told == missing, "what is missing is counted where it is missing"
    return told, missing
