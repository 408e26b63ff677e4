"""Heartbeats: a node that beats is never missed, a reboot's leftovers are."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import pytest

from instances.heartbeats import Heartbeats


def test_a_node_that_beats_all_the_time_is_never_missed(tmp_path: Path) -> None:
    beats = Heartbeats(tmp_path)
    beats.beat("node-1")
    done = threading.Event()

    def keep_beating() -> None:
        while not done.is_set():
            beats.beat("node-1")

    beating = threading.Thread(target=keep_beating)
    beating.start()
    try:
        ages = [beats.ages() for _ in range(1500)]
    finally:
        done.set()
        beating.join()
    assert all("node-1" in age for age in ages)
    assert all(age["node-1"] >= 0 for age in ages)


def test_a_beat_from_before_a_reboot_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "node-1").write_bytes(struct.pack("<q", time.monotonic_ns() + 10**12))
    (tmp_path / "node-2").write_bytes(b"torn")
    assert Heartbeats(tmp_path).ages() == {}


def test_a_name_that_is_no_nodes_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name"):
        Heartbeats(tmp_path).beat("../x")
    assert list(tmp_path.iterdir()) == []
