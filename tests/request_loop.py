"""A client that never stops asking, to see whether anything was dropped."""

from __future__ import annotations

import threading
from typing import Any

import httpx

from tests.running_platform import Platform


class RequestLoop:
    """Keeps asking an app through the ingress; counts what came back."""

    def __init__(self, platform: Platform, app: dict[str, Any], pause_s: float = 0.01) -> None:
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._platform, self._app, self._pause_s = platform, app, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        host = httpx.URL(self._app["urls"][0]).host
        url = f"http://127.0.0.1:{self._platform.config['ingress']['port']}/"
        with httpx.Client(headers={"Host": host}, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    status = client.get(url).status_code
                    self.answers.append(status)
                    if status != 200:
                        self.failures.append(str(status))
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                self._stop.wait(self._pause_s)

    def __enter__(self) -> RequestLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
