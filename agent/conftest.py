"""Fixtures: a fake control plane, and agents as real processes whose instances are swept away afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.fake_plane import FakePlane

ROOT = Path(__file__).resolve().parent.parent


class AgentUnderTest:
    """One node's agent, started and killed at will over the same directories."""

    def __init__(self, plane: FakePlane, directory: Path, ports: tuple[int, int], **changes: Any) -> None:
        self.plane = plane
        self.state = directory
        self.instances = directory / "instances"
        self.log = directory / "agent.log"
        self.config = directory / "agent.json"
        self.process: subprocess.Popen[bytes] | None = None
        config = {
            "node": plane.node,
            "address": "127.0.0.1",
            "index": 0,
            "control_plane": [plane.url],
            "token": "omni_node_test",
            "state_dir": str(directory / "node" / "agent"),
            "instances_dir": str(self.instances),
            "port_range": list(ports),
            "members_on_host": 4,
            "heartbeat_s": 0.2,
            "sample_interval_s": 0.5,
            "wait_s": 2.0,
            "filter_network": False,
            **changes,
        }
        self.config.write_text(json.dumps(config))

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--config", str(self.config)], cwd=ROOT, stdout=log, stderr=log
            )

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def sweep(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "agent.sweep", "--state", str(self.state), "--longest-stop", "1"],
            cwd=ROOT,
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture
def plane() -> Iterator[FakePlane]:
    made = FakePlane()
    yield made
    made.close()


@pytest.fixture
def agent(plane: FakePlane, tmp_path: Path) -> Iterator[AgentUnderTest]:
    worker = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", "0"))) or 0)
    low = 43000 + worker * 100 + int(time.monotonic() * 10) % 50
    made = AgentUnderTest(plane, tmp_path, (low, low + 40))
    yield made
    made.end(signal.SIGKILL)
    made.sweep()
