"""pytest plugin, loaded early by `-p omni.testing.database`: chooses the database before Django's settings are read.

OMNI_TEST_DATABASE=sqlite (default) or mariadb: a private server, torn down at the end. OMNI_TEST_DATABASE_URL: an
existing server instead. Everything that tests write goes to a temporary state directory. A missing server is a failure,
never a skip. Tests that touch the database get the mark `database`, so that a second run can choose them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from omni.testing.mariadb import NoServer, PrivateMariaDB

_PREPARED = "OMNI_TEST_PREPARED"  # the pytest-xdist workers inherit it together with the rest
_CLEARED = (
    "OMNI_DATABASE_URL",
    "OMNI_TELEMETRY_DATABASE_URL",
    "OMNI_BROKER_URL",
    "OMNI_NODE",
    "OMNI_ROLE",
    "OMNI_PROCESS",
)


def prepare() -> None:
    """Set the environment that `omni.kernel.config` will read."""
    if os.environ.get(_PREPARED):
        return
    os.environ[_PREPARED] = "1"
    for name in _CLEARED:
        os.environ.pop(name, None)
    state = tempfile.mkdtemp(prefix="omni-test-")
    atexit.register(shutil.rmtree, state, ignore_errors=True)
    os.environ["OMNI_STATE"] = state
    os.environ["OMNI_ENV"] = "development"
    url = os.environ.get("OMNI_TEST_DATABASE_URL", "")
    kind = os.environ.get("OMNI_TEST_DATABASE", "mariadb" if url else "sqlite")
    if kind not in ("sqlite", "mariadb"):
        raise pytest.UsageError(f"OMNI_TEST_DATABASE={kind}: write sqlite or mariadb")
    if kind == "mariadb":
        os.environ["OMNI_DATABASE_URL"] = url or _start_server()
    secret = Path(state, "cluster.secret")
    secret.touch(mode=0o600)
    secret.write_text("0" * 64 + "\n")


def _start_server() -> str:
    try:
        server = PrivateMariaDB()
    except NoServer as error:
        raise pytest.UsageError(str(error)) from None
    atexit.register(_stop, server)
    try:
        server.__enter__()
    except NoServer as error:
        raise pytest.UsageError(str(error)) from None
    return server.create("omni")


def _stop(server: PrivateMariaDB) -> None:
    with suppress(OSError):
        server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.get_closest_marker("django_db") or {"db", "transactional_db", "django_db_setup"} & set(fixtures):
            item.add_marker("database")


@pytest.fixture(scope="session", autouse=True)
def database_first(request: pytest.FixtureRequest) -> None:
    """Migrate before the first test of whatever kind: a test's lease would make `migrate` believe in a live leader."""
    if any(item.get_closest_marker("database") for item in request.session.items):
        request.getfixturevalue("django_db_setup")


@pytest.fixture(scope="session", autouse=True)
def reachable_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytest makes its folders for one user; apps and builds, run as users of their own, must get through."""
    top = Path(tempfile.gettempdir()).resolve()
    folder = tmp_path_factory.getbasetemp().resolve()
    while folder != top and top in folder.parents:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent


def pytest_report_header() -> str:
    return f"database: {'MariaDB' if os.environ.get('OMNI_DATABASE_URL') else 'SQLite'}"


prepare()
