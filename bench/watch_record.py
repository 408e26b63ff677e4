"""What `bench.watch` saw: API and console asked again and again, each answer held against what is true.

Owns the record (one JSON line a look) and the judgement: how late a state may be, and what is a lie.
"""

from __future__ import annotations

import contextlib
import html
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.watch_things import Truth

EVERY_S = 2.0
_ROW = re.compile(r'<tr id="s\d+">.*?class="main"[^>]*>([^<]+)<.*?class="state" data-tone="\w+">([^<]+)<', re.DOTALL)


@dataclass
class Lie:
    at_s: float
    service: str
    was: str
    said: str
    by: str


class Console:
    """A session at one member's console. Raises httpx.HTTPError, ValueError."""

    def __init__(self, member: str, password: str) -> None:
        self._client = httpx.Client(base_url=member, timeout=10, trust_env=False, follow_redirects=False)
        form = self._client.get("/admin/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        if token is None:
            raise ValueError("the console shows no form to log in")
        data = {"username": "admin", "password": password, "next": "/admin/", "csrfmiddlewaretoken": token[1]}
        answer = self._client.post("/admin/login/", data=data, headers={"Referer": f"{member}/admin/login/"})
        if answer.status_code != 302:
            raise ValueError(f"the console does not let us in: {answer.status_code}")

    def page(self, path: str) -> str:
        answer = self._client.get(path)
        if answer.status_code != 200:
            raise ValueError(f"{path}: {answer.status_code}")
        return answer.text

    def states(self) -> dict[str, str]:
        """Service → state, as the page of services shows it."""
        return {html.unescape(name): state for name, state in _ROW.findall(self.page("/admin/service/?source=own"))}


@dataclass
class Recorder:
    """Looks every two seconds until it is told to end. `patience_s(name)`: how long after a change of the truth a state
    may still be the old one."""

    members: list[str]
    token: str
    password: str
    truth: Truth
    patience_s: Callable[[str], float]
    file: Path
    begun: float = field(default_factory=time.monotonic)
    lies: list[Lie] = field(default_factory=list)
    looks: int = 0
    unanswered: dict[str, int] = field(default_factory=lambda: {"api": 0, "console": 0})
    judged: int = 0
    alerts: dict[int, dict[str, Any]] = field(default_factory=dict)
    fine: set[str] = field(default_factory=set)  # members that are to answer
    _over: threading.Event = field(default_factory=threading.Event)
    _consoles: dict[str, Console] = field(default_factory=dict)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.fine = set(self.members)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(30)

    def note(self, what: str) -> None:
        print(f"{time.monotonic() - self.begun:7.1f} s  {what}", flush=True)
        self._write({"what": what})

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.looks += 1
            member = random.choice(sorted(self.fine) or self.members)
            api = self._asked(member)
            console = self._console(member)
            self._write({"member": member, "api": api, "console": console})
            self._judge("api", {one["name"]: _shown(one) for one in api or ()})
            self._judge("console", console or {})

    def _asked(self, member: str) -> list[dict[str, Any]] | None:
        try:
            with httpx.Client(base_url=member, headers={"Authorization": f"Bearer {self.token}"}, timeout=10,
                              trust_env=False) as client:  # fmt: skip
                found = client.get("/services?limit=500")
                alerts = client.get("/alerts?limit=500")
                if alerts.status_code == 200:
                    self.alerts |= {one["id"]: one for one in alerts.json()["items"]}
                found.raise_for_status()
                kept = ("name", "state", "state_since", "detail", "flapping")
                return [{name: one.get(name) for name in kept} for one in found.json()["items"]]
        except httpx.HTTPError as error:
            self.unanswered["api"] += 1
            self._write({"member": member, "no answer": str(error)[:200]})
            return None

    def _console(self, member: str) -> dict[str, str] | None:
        try:
            if member not in self._consoles:
                self._consoles[member] = Console(member, self.password)
            return self._consoles[member].states()
        except (httpx.HTTPError, ValueError) as error:
            self._consoles.pop(member, None)
            self.unanswered["console"] += 1
            self._write({"member": member, "no page": str(error)[:200]})
            return None

    def _judge(self, by: str, said: dict[str, str]) -> None:
        now = time.monotonic()
        for name, (since, state) in self.truth.now.items():
            if state is None or name not in said or now - since < self.patience_s(name):
                continue
            self.judged += 1
            if said[name] != state:
                self.lies.append(Lie(now - self.begun, name, state, said[name], by))

    def _write(self, line: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"s": round(time.monotonic() - self.begun, 1), **line}) + "\n")


def _shown(one: dict[str, Any]) -> str:
    return "flapping" if one.get("flapping") else str(one["state"])
