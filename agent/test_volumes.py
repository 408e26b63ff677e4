"""What the agent does with volumes: measures, keeps, and removes on an explicit word only."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.protocol import VolumeOrder, VolumeSeen
from agent.store import Store
from agent.volumes import Volumes, size_of

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = Store("n", directory / "instances", directory / "state")
        self.used: set[str] = set()
        self.told: list[VolumeSeen] = []
        self.jobs: set[str] = set()
        self.volumes = Volumes(self.store, lambda: self.used, self.told.append, lambda: self.jobs)

    def fill(self, key: str, size: int = 10_000) -> Path:
        directory = self.store.volume(key)
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"x" * size)
        return directory

    def look(self, *orders: VolumeOrder) -> float:
        self.volumes.apply(orders)
        return asyncio.run(self.volumes.look())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_only_an_explicit_word_removes_and_never_what_is_in_use(bench: Bench) -> None:
    kept, doomed = bench.fill(KEY), bench.fill(OTHER)
    bench.look()
    assert kept.exists()
    assert doomed.exists()
    bench.used.add(OTHER)
    assert bench.look(VolumeOrder(KEY), VolumeOrder(OTHER, keep=False)) < 10
    assert doomed.exists()
    bench.used.clear()
    bench.look(VolumeOrder(KEY), VolumeOrder(OTHER, keep=False))
    assert kept.exists()
    assert not doomed.exists()
    assert bench.told[-1] == VolumeSeen(OTHER, removed=True)


def test_what_a_restore_left_whose_agent_died_goes_with_the_next_look_but_not_under_a_job(bench: Bench) -> None:
    volume = bench.fill(KEY)
    old, new, archive = (bench.store.beside_volume(KEY, what) for what in ("old", "new", "archive"))
    old.mkdir()
    new.mkdir()
    archive.write_bytes(b"x")
    bench.jobs.add(KEY)
    bench.look(VolumeOrder(KEY))
    assert bench.look(VolumeOrder(KEY, keep=False)) < 10
    assert sorted(volume.parent.iterdir()) == sorted([volume, old, new, archive])
    bench.jobs.clear()
    bench.look(VolumeOrder(KEY))
    assert list(volume.parent.iterdir()) == [volume]
    old.mkdir()
    bench.look(VolumeOrder(KEY, keep=False))
    bench.look(VolumeOrder(KEY, keep=False))  # and nothing comes back by another name
    assert list(volume.parent.iterdir()) == []


def test_what_is_gone_already_is_said_again(bench: Bench) -> None:
    bench.look(VolumeOrder(KEY, keep=False))
    bench.look(VolumeOrder(KEY, keep=False))
    assert bench.told == [VolumeSeen(KEY, removed=True)] * 2


def test_a_size_is_told_when_it_changes_and_links_lead_nowhere(bench: Bench, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(b"x" * 1_000_000)
    directory = bench.fill(KEY)
    (directory / "link").symlink_to(big)
    os.link(directory / "file", directory / "same")
    bench.look(VolumeOrder(KEY))
    bench.look(VolumeOrder(KEY))
    (seen,) = bench.told
    assert seen.size_bytes is not None
    assert 10_000 <= seen.size_bytes < 100_000
    (directory / "more").write_bytes(b"x" * 500_000)
    bench.look(VolumeOrder(KEY))
    assert bench.told[-1].size_bytes is not None
    assert bench.told[-1].size_bytes >= 500_000


def test_what_nobody_measured_has_no_size(bench: Bench) -> None:
    bench.look(VolumeOrder(KEY))
    assert bench.told == []
    assert size_of(bench.fill(KEY), within_s=-1.0) is None


@pytest.mark.parametrize("key", ["", "..", "../../etc", "a/b", "ABCDEF0123456789", KEY + "/x"])
def test_what_is_no_key_never_becomes_a_path(bench: Bench, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        bench.store.volume(key)
    bench.look(VolumeOrder(key, keep=False))
    assert bench.told == []
