"""`omni volumes`."""

from __future__ import annotations

import os

import pytest

from cli.conftest import Omni
from cli.fake_api import FakeApi


@pytest.fixture(autouse=True)
def shop(omni: Omni) -> None:
    omni("apps", "create", "shop")


def test_volumes_are_listed_and_created(omni: Omni, api: FakeApi) -> None:
    assert omni("volumes", "list", "shop").out.splitlines()[1].split() == ["data", "/data", "n1", "4096"]
    assert "on n1" in omni("volumes", "create", "shop", "files", "/srv/files", "--node", "n1").out
    assert api.writes()[-1].json == {"name": "files", "path": "/srv/files", "node": "n1"}


def test_destroying_data_is_confirmed_by_name(omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    before = len(api.writes())
    assert omni("volumes", "delete", "shop", "data").code != 0  # nobody there to ask
    assert len(api.writes()) == before
    assert omni("volumes", "delete", "shop", "data", "--yes").code == 0
    assert api.writes()[-1].query == {"confirm": "data"}


def test_an_app_goes_with_its_volumes_only_when_that_is_said(omni: Omni, api: FakeApi) -> None:
    omni("apps", "delete", "shop", "--yes")
    assert api.writes()[-1].query == {}
    omni("apps", "create", "shop")
    omni("apps", "delete", "shop", "--yes", "--with-volumes")
    assert api.writes()[-1].query == {"confirm": "shop"}


def test_a_snapshot_is_waited_for_and_listed(omni: Omni, api: FakeApi) -> None:
    said = omni("volumes", "snapshot", "shop", "data").out
    assert said.strip() == "snapshot 3 of data (stopped): 2 files, 4096 bytes, 1 left out"
    assert api.writes()[-1].json == {}
    omni("volumes", "snapshot", "shop", "data", "--live", "--detach")
    assert api.writes()[-1].json == {"consistency": "live"}
    for words in (["shop"], ["shop", "data"]):
        listed = omni("volumes", "snapshots", *words).out.splitlines()[1].split()
        assert listed[:5] == ["3", "data", "succeeded", "stopped", "4096"]


def test_one_that_failed_says_why(omni: Omni, api: FakeApi) -> None:
    api.snapshot = {"status": "failed", "reason": "no_room", "detail": "the disk is full"}
    result = omni("volumes", "snapshot", "shop", "data")
    assert result.code != 0
    assert "no_room: the disk is full" in result.err


def test_what_replaces_or_destroys_is_asked_for(omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    before = len(api.writes())
    assert omni("volumes", "restore", "shop", "data", "3").code != 0  # nobody there to ask
    assert omni("volumes", "delete-snapshot", "shop", "3").code != 0
    assert len(api.writes()) == before
    assert "as in snapshot 3" in omni("volumes", "restore", "shop", "data", "3", "--stop", "--yes").out
    assert (api.writes()[-1].query, api.writes()[-1].json) == ({"confirm": "data"}, {"snapshot": 3, "stop": True})
    assert omni("volumes", "delete-snapshot", "shop", "3", "--yes").code == 0
    assert api.writes()[-1].query == {"confirm": "3"}
