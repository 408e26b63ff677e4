"""The private engine: it runs something, and leaves nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from omni.testing.docker_engine import DockerEngine, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(autouse=True)
def lease() -> None:
    """No control plane here."""


def test_an_engine_runs_a_container_and_leaves_nothing() -> None:
    folder = Path(tempfile.mkdtemp(prefix="oe-"))
    engine = DockerEngine(folder)
    try:
        engine.start()
        engine.import_busybox("busybox:latest")
        assert engine.has_image("busybox:latest")
        assert (
            engine.docker("run", "--rm", "--network", "none", "busybox:latest", "echo", "from inside")
            == "from inside\n"
        )
        engine.docker("run", "--detach", "--network", "none", "busybox:latest", "sleep", "600")
        daemon = int((folder / "pid").read_text())
    finally:
        engine.stop()
    assert not folder.exists()
    assert not Path(f"/proc/{daemon}").exists() or os.waitpid(daemon, os.WNOHANG)
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{engine.cgroup}"))
