"""Simulated worlds for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consensus.raft.core import Core
from consensus.raft.simulated import World

THREE = ["a-1", "b-1", "c-1"]
Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    worlds: list[World] = []

    def new(ids: list[str] = THREE, seed: int = 1, core: type[Core] = Core) -> World:
        world = World(tmp_path / str(len(worlds)), ids, seed, monkeypatch, core)
        worlds.append(world)
        return world

    yield new
    for world in worlds:
        world.__exit__()
