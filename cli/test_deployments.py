"""`omni deployments …` and freezes against the fake API: the calls they make, what they print, their exit codes."""

from __future__ import annotations

import pytest

from cli.conftest import Omni
from cli.fake_api import FakeApi


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "cancel"])
def test_each_verb_goes_to_the_deployment_named_or_else_to_the_newest(omni: Omni, api: FakeApi, verb: str) -> None:
    omni("apps", "create", "web")
    assert omni("deployments", verb, "web", "4").code == 0
    newest = omni("deployments", verb, "web")
    assert newest.code == 0, newest.err
    assert "omni deployments show web 9" in newest.out
    paths = [(call.method, call.path) for call in api.writes()[1:]]
    assert paths == [("POST", f"/app/web/deployments/{number}/{verb}") for number in (4, 9)]


def test_what_a_deployment_refuses_is_said_with_what_helps(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    api.deployment = {"over": True}
    result = omni("deployments", "pause", "web", "9")
    assert (result.code, result.err.splitlines()) == (1, ["error: It is over.", "next: omni rollback"])


def test_promote_waits_for_the_end_when_asked_to(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    api.deployment = {"status": "rolling", "phase": "awaiting_promotion"}
    result = omni("deployments", "promote", "web", "9", "--wait")
    assert (result.code, result.out.splitlines()[-1]) == (0, "deployment 9 of web is done")
    api.deployment_ends = "reverted"
    assert omni("deployments", "promote", "web", "9", "--wait").code == 3


@pytest.mark.parametrize(("phase", "verb"), [("awaiting_promotion", "promote"), ("paused", "resume")])
def test_a_deploy_that_waits_for_somebody_says_for_what(omni: Omni, api: FakeApi, phase: str, verb: str) -> None:
    omni("apps", "create", "web")
    api.deployment = {"status": "rolling", "phase": phase}
    result = omni("deploy", "web", "v2", "--timeout", "5")
    assert (result.code, result.out.splitlines()) == (
        0,
        ["15:00:00 place · 1 of 1 missing", f"deployment 9 waits for: omni deployments {verb} web 9"],
    )


def test_list_and_show_say_how_far_it_is_and_what_it_failed_by(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    evidence = {
        "instance_id": 5, "slot": 0, "node": "n1", "detail": "ended by signal 9", "log": ["allocating \x1b[31mmore"],
        "last_exit": {"code": None, "signal": 9, "oom": True, "lines": ["allocating"]},
        "last_probe": {"detail": "connection refused", "snippet": ""},
    }  # fmt: skip
    api.deployment = {
        "status": "reverted", "kind": "deploy", "version": "v2", "previous_version": "v1", "evidence": evidence,
        "error": {"code": "instance_failed", "detail": "It ended three times."},
        "ledger": {"requests": 12, "retried": 1, "failed": 0},
    }  # fmt: skip
    listed = omni("deployments", "list", "web").out.splitlines()
    assert listed[1].split()[:5] == ["9", "deploy", "reverted", "-", "v2"]
    assert "It ended three times." in listed[1]
    shown = omni("deployments", "show", "web")
    assert shown.code == 0, shown.err
    for wanted in ("requests", "signal 9, out of memory", "connection refused", "5 in slot 0 on n1", "place", "12"):
        assert wanted in shown.out, wanted
    assert "\x1b" not in shown.out
    assert omni("deployments", "show", "web", "9", "--json").json["evidence"]["last_exit"]["oom"] is True


def test_a_long_deployments_steps_are_each_shown_once(omni: Omni, api: FakeApi, monkeypatch) -> None:
    """The platform keeps the last 200 steps only: a list that moves on is not one that begins anew."""
    from cli import follow

    steps = [{"what": f"step{i}", "at": "2026-11-22T15:00:00Z"} for i in range(6)]
    answers = [steps[0:3], steps[1:4], steps[1:4], steps[3:6]]

    class Out:
        as_json, told = False, []

        def paint(self, text: str, _colour: str) -> str:
            return text

        def say(self, text: str) -> None:
            self.told.append(text.split()[1])

    class Api:
        def watch(self, _path, done, _timeout):
            body = {}
            for i, shown in enumerate(answers):
                body = {"steps": shown, "status": "succeeded" if i == len(answers) - 1 else "rolling"}
                done(body)
            return type("Answer", (), {"body": body})()

    out = Out()
    follow.deployment(Api(), out, "web", 9, 5.0)  # type: ignore[arg-type]
    assert out.told == [f"step{i}" for i in range(6)]


def test_freeze_tells_its_reason_and_deploys_pass_it_on_the_record_only(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    assert omni("apps", "freeze", "web", "audit", "--until", "2027-01-02T00:00:00Z").out == "web is frozen: audit\n"
    assert api.writes()[-1].json == {"freeze": {"reason": "audit", "until": "2027-01-02T00:00:00Z"}}
    assert "audit" in omni("apps", "info", "web").out
    assert omni("deploy", "web", "v1", "--override-freeze").code == 0
    assert api.writes()[-1].query == {"override_freeze": "true"}
    assert omni("rollback", "web", "--override-freeze").code == 0
    assert api.writes()[-1].query == {"override_freeze": "true"}
    assert omni("apps", "unfreeze", "web").code == 0
    assert api.writes()[-1].json == {"freeze": None}
