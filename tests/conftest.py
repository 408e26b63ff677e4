"""One running platform for all stories that do not break it; which stories may run side by side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.running_platform import Platform


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook, and would come before us
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: stories that share a platform stay in one process, whatever file they are in."""
    for item in items:
        shared = [name for name in ("platform", "lab") if _is_shared(item, name)]
        group = f"the shared {shared[0]}" if shared else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Groups that are given and not kept once had every shared platform twice, side by side, and nobody was told."""
    if getattr(session.config.option, "loadgroup", False) and any("@" not in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not keep the groups with this pytest: install what is pinned")


def _is_shared(item: pytest.Item, fixture: str) -> bool:
    found = item._fixtureinfo.name2fixturedefs.get(fixture, ()) if isinstance(item, pytest.Function) else ()
    return bool(found) and found[-1].scope == "session"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform.prepared(tmp_path_factory.mktemp("platform"))
    running.migrates = True
    running.start()
    yield running
    assert running.stop() == 0
