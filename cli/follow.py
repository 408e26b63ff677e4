"""Waiting for long work and showing it: build logs, deployments, an app's log.

Owns the loops that resume a cut stream where it stopped, on whichever member answers then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from cli.api import Api, app_path
from cli.errors import UNHEALTHY, CommandError
from cli.output import Output, clean

BUILD_TIMEOUT_S = 3600.0
PAUSE_S = 0.5  # before a stream that was cut at once is asked for again
BUILD_ENDED = ("succeeded", "failed", "cancelled")
DEPLOYMENT_ENDED = ("succeeded", "failed", "cancelled", "reverting", "reverted")
DEPLOYMENT_WAITS = {"awaiting_promotion": "promote", "paused": "resume"}  # phase: the verb that lets it go on


def lines(api: Api, path: str, **query: object) -> Iterator[dict[str, Any]]:
    """Log lines or events for ever, or until the stream says that there will be none any more."""
    last = ""
    while True:
        events = api.events(path, last, _resumed(query) if last else query)
        if events is None:
            yield from _poll(api, path, last, query)
            return
        began = time.monotonic()
        for event in events:
            if event.kind == "end":
                return
            if event.kind == "problem":
                break
            last = event.id or last
            yield json.loads(event.data)
        if time.monotonic() - began < 1:
            time.sleep(PAUSE_S)


def _resumed(query: dict[str, object]) -> dict[str, object]:
    """What still chooses when a stream goes on: all but where it began."""
    return {name: value for name, value in query.items() if name not in ("tail", "since")}


def _poll(api: Api, path: str, last: str, query: dict[str, object]) -> Iterator[dict[str, Any]]:
    """The same by asking again and again, where something between us and the server passes no streams."""
    while True:
        body = api.get(path, limit=500, **({**_resumed(query), "cursor": last} if last else query)).body
        for item in body["items"]:
            last = str(item.get("cursor") or item.get("id") or last)
            yield item
        if body.get("ended") and not body["items"]:
            return
        if not body["items"]:
            time.sleep(1.0)


def show_line(out: Output, line: dict[str, Any], *, with_instance: bool) -> None:
    if out.as_json:
        print(json.dumps(line, ensure_ascii=False), flush=True)
        return
    stamp = out.paint(str(line.get("at", ""))[11:23], "bright_black")
    who = ""
    if with_instance:
        instance = line.get("instance_id")
        who = " " + out.paint(f"#{instance}", ("cyan", "magenta", "blue", "green", "yellow")[int(instance or 0) % 5])
    text = clean(str(line.get("line", "")))
    out.say(f"{stamp}{who} {out.paint(text, 'red') if line.get('stream') == 'stderr' and out.fancy else text}")


def build(api: Api, out: Output, app: str, build_id: int) -> dict[str, Any]:
    """Show a build's log until it has ended; raises when it did not succeed."""
    path = app_path(app, "builds", build_id)
    if not out.as_json:
        for line in lines(api, f"{path}/logs", tail=500):
            show_line(out, line, with_instance=False)
    found: dict[str, Any] = api.watch(path, lambda body: body["status"] in BUILD_ENDED, BUILD_TIMEOUT_S).body
    if found["status"] != "succeeded":
        error = found.get("error") or {}
        what = f"build {build_id} of {app} {found['status']}"
        detail = f"{what}: {error['detail']}" if error.get("detail") else what
        raise CommandError(detail, next_step=f"omni builds {app} --log {build_id}")
    return found


def deployment(api: Api, out: Output, app: str, deployment_id: int, timeout_s: float) -> dict[str, Any]:
    """Show a deployment's steps until it has ended or waits for somebody; raises when it did not succeed."""
    shown: list[Any] = []

    def rests(body: dict[str, Any]) -> bool:
        nonlocal shown
        steps = body.get("steps") or []
        if not out.as_json:
            for step in steps[_known(steps, shown) :]:
                words = [str(step.get(key)) for key in ("what", "reason") if step.get(key)]
                stamp = out.paint(str(step.get("at") or "")[11:19], "bright_black")
                out.say(f"{stamp} {clean(' · '.join(words))}")
        shown = steps
        return body["status"] in DEPLOYMENT_ENDED or body.get("phase") in DEPLOYMENT_WAITS

    path = app_path(app, "deployments", deployment_id)
    found: dict[str, Any] = api.watch(path, rests, timeout_s).body
    if found["status"] in DEPLOYMENT_ENDED and found["status"] != "succeeded":
        reason = (found.get("error") or {}).get("detail") or found.get("reason") or ""
        detail = f"deployment {deployment_id} of {app} {found['status']}{': ' + str(reason) if reason else ''}"
        raise CommandError(detail, next_step=f"omni deployments show {app} {deployment_id}", exit_code=UNHEALTHY)
    return found


def _known(steps: list[Any], shown: list[Any]) -> int:
    """How many of `steps` are in `shown`: the platform keeps the last ones of a long deployment only."""
    return next((end for end in range(len(steps), 0, -1) if shown and steps[end - 1] == shown[-1]), 0)


def deployment_of_release(api: Api, app: str, release_id: int, version: str, timeout_s: float) -> int | None:
    """The deployment that a finished build caused; None when the app already runs it."""

    def there(body: dict[str, Any]) -> bool:
        return _matches(body.get("deployment"), release_id, version) or _runs(body, version)

    info = api.watch(app_path(app, "info"), there, timeout_s).body
    latest = info.get("deployment")
    return int(latest["id"]) if _matches(latest, release_id, version) else None


def _matches(found: Any, release_id: int, version: str) -> bool:
    if not isinstance(found, dict):
        return False
    release = found.get("release")
    if isinstance(release, dict):
        release = release.get("id")
    return release_id in (found.get("release_id"), release) or version in (
        found.get("version"),
        found.get("to_version"),
    )


def _runs(info: dict[str, Any], version: str) -> bool:
    return bool((info.get("version") or {}).get("current") == version and info.get("status") == "running")


def after(api: Api, out: Output, app: str, body: Any, timeout_s: float) -> Any:
    """Wait for what a 202 has begun: its deployment if it names one, else the app's coming to rest."""
    found = body.get("deployment") if isinstance(body, dict) else None
    if isinstance(found, dict) and "id" in found:
        return deployment(api, out, app, int(found["id"]), timeout_s)
    if isinstance(body, dict) and "steps" in body and "status" in body and "id" in body:
        return deployment(api, out, app, int(body["id"]), timeout_s)

    def settled(info: dict[str, Any]) -> bool:
        counts = info.get("instances_summary") or {}
        busy = info.get("status") in ("deploying",)
        return not busy and counts.get("healthy") == counts.get("desired")

    return api.watch(app_path(app, "info"), settled, timeout_s).body
