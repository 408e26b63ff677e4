"""The engine's log becomes two files: without gap and repetition, however coarse the engine's clock is."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.runtimes.engine import output, stream
from agent.runtimes.engine.client import Away


def frame(which: int, second: int, number: int) -> bytes:
    text = f"2026-11-23T04:45:{second:02}Z {which} {number}\n".encode()
    return struct.pack(">BxxxL", which, len(text)) + text


class Log:
    """An engine that keeps lines with whole seconds, as Podman does, and breaks off where `cuts` say."""

    def __init__(self, lines: list[bytes], cuts: list[int]) -> None:
        self.lines, self.cuts = lines, list(cuts)

    async def get(self, _url: str, _path: str, query: dict[str, str]) -> AsyncGenerator[bytes, None]:
        first = float(query["since"])
        told = [line for line in self.lines if output.moment(line[8:28].decode())[0] >= first]
        cut = self.cuts.pop(0) if self.cuts else None
        yield b"".join(told if cut is None else told[:cut])
        if cut is not None:
            raise Away("cut off")


@given(
    seconds=st.lists(st.integers(0, 3), min_size=1, max_size=40).map(sorted),
    which=st.lists(st.sampled_from([1, 2]), min_size=40, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
@example(seconds=[0] * 8, which=[1] * 40, cuts=[2])
def test_no_line_is_lost_or_repeated_however_often_the_answer_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], which: list[int], cuts: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("output")
    lines = [frame(which[number], second, number) for number, second in enumerate(seconds)]
    log = Log(lines, cuts)

    async def over() -> bool:
        return False

    async def story() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "get", log.get)
            patch.setattr(output, "_AGAIN_S", 0.0)
            engine: Any = type("E", (), {"url": ""})()
            assert await output.Output(engine, "c", directory, over).finish(30)

    output.begin(directory, "c")
    asyncio.run(story())
    for place, name in ((1, "stdout.log"), (2, "stderr.log")):
        wanted = [f"{place} {number}" for number in range(len(seconds)) if which[number] == place]
        assert (Path(directory) / name).read_text().splitlines() == wanted
