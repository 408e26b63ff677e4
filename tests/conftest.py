"""One running platform for all stories that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running_platform import Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform.prepared(tmp_path_factory.mktemp("platform"))
    running.start()
    yield running
    assert running.stop() == 0
