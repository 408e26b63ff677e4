"""Fixtures of every test: a lease that is held, a gate to write through, factories' tidy-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consensus.fake import FakeLease


@pytest.fixture(autouse=True)
def lease() -> FakeLease:
    """Every test runs on a member that leads under epoch 1, until it says otherwise."""
    from accounts import authentication, own_org
    from apps import configuration, lean_access
    from consensus import gate
    from instances.telemetry import figures
    from omni.api import parts
    from omni.rest import index
    from omni.testing.inline_probe import Inline

    fake = FakeLease(epoch=1)
    gate.configure(fake, "127.0.0.1-8000")
    index.forget()
    authentication.forget()
    own_org.forget()
    figures.forget()
    configuration.forget()
    lean_access.forget()
    parts.forget()
    # a probe's own thread has a connection of its own, which does not see what a test has not committed
    parts.database = Inline(lambda: parts.read_database("test"), lambda why: parts.Database(False, why))
    parts.within = lambda ask, failed: Inline(ask, failed).ask()
    return fake


@pytest.fixture(scope="session", autouse=True)
def static_files_when_asked_for() -> None:
    """A test client builds the middleware anew, which lists and measures every static file: most of what it took."""
    from django.conf import settings

    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture
def in_gate(fence: None) -> Callable[..., Any]:
    """Run a verb in the gate as the system; returns its result: `in_gate(verb, app=app)`."""
    from consensus import gate
    from omni.kernel.context import system

    def run(verb: Callable[..., Any], **arguments: Any) -> Any:
        result, _ = gate.run(lambda tx: verb(tx, **arguments), actor=system("test"), cause="test")
        return result

    return run


@pytest.fixture
def fence(db: None) -> None:
    """The fence row under epoch 1."""
    from omni.testing.factories import make_fence

    make_fence()


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_modify_db_settings: None, django_db_blocker: Any
) -> Iterator[None]:
    """pytest-django's own set-up, with the gate open for migrations and for emptying tables.

    `django_db_modify_db_settings` gives each process of pytest-xdist databases of its own.
    """
    from django.db import connections
    from django.test.utils import setup_databases, teardown_databases

    from consensus import gate

    with django_db_blocker.unblock(), gate.maintenance("set up the test database"):
        config = setup_databases(verbosity=0, interactive=False)
    with pytest.MonkeyPatch.context() as patch:
        _empty_tables_in_maintenance(patch)
        yield
    with django_db_blocker.unblock():
        for connection in connections.all():
            connection.close()
        teardown_databases(config, verbosity=0)


def _empty_tables_in_maintenance(patch: pytest.MonkeyPatch) -> None:
    """A test with real transactions ends by emptying every table, which the write guard would refuse."""
    from django.test import TransactionTestCase

    from consensus import gate

    empty = TransactionTestCase._fixture_teardown

    def in_maintenance(self: TransactionTestCase) -> None:
        with gate.maintenance("empty the tables after a test"):
            empty(self)

    patch.setattr(TransactionTestCase, "_fixture_teardown", in_maintenance)
