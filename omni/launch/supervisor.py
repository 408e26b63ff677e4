"""Keeps a set of processes running: starts them, restarts the dead after a back-off, stops them in time.

Owns its children and what those leave behind. One thread, woken by signals, so that an idle supervisor costs nothing.
Must not know what the processes do, and must never let a mistake of one child end the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from omni.launch import proc, rotation
from omni.launch.screen import last_lines
from omni.launch.spec import ProcessSpec

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_HEALTHY_AFTER_S = 30.0
_ROTATE_EVERY_S = 10.0
_CLEANUP_S = 10.0
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Signals:
    """Turns SIGTERM, SIGINT, SIGHUP and SIGCHLD into something that one thread can wait for."""

    def __init__(self) -> None:
        self.stops = 0
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, self._stop)
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def _stop(self, _number: int, _frame: object) -> None:
        self.stops += 1

    def wait(self, seconds: float) -> None:
        """Until a signal comes or the time is over."""
        import select

        if seconds > 0:
            select.select([self._reader], [], [], seconds)
        try:
            while self._reader.recv(512):
                pass
        except (BlockingIOError, InterruptedError):
            pass


class Child:
    """One process that is to run: its spec, its current process, and when to start it again."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.failures = 0
        self.due: float | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None


class Supervisor:
    """`say` gets one plain line for each thing that people want to know."""

    def __init__(self, state: str, *, restart: bool, say: Callable[[str], None], signals: Signals) -> None:
        self.state = state
        self.restart = restart
        self.say = say
        self.signals = signals
        self.children: dict[str, Child] = {}
        self._passing: set[int] = set()  # pids of what `run` runs
        self._next_rotation = 0.0

    def start(self, spec: ProcessSpec) -> None:
        """Start it now and keep it running."""
        child = self.children[spec.name] = Child(spec)
        self._spawn(child)

    def run(self, spec: ProcessSpec, timeout_s: float, until: Callable[[], bool] = lambda: False) -> int | None:
        """Run what ends by itself while the others are watched; its exit code, None when time or `until` came."""
        process = self._popen(spec, _open_log(spec.log))
        self._passing.add(process.pid)
        deadline = time.monotonic() + timeout_s
        while (code := process.poll()) is None and time.monotonic() < deadline and not until():
            self.watch(0.5)
        if code is None:
            process.kill()
            process.wait(5)
        self._passing.discard(process.pid)
        return code

    def watch(self, longest_s: float) -> None:
        """Wait for something to happen, at most `longest_s`; reap, restart and rotate what is due."""
        now = time.monotonic()
        dues = [child.due for child in self.children.values() if child.due is not None]
        self.signals.wait(max(0.0, min([longest_s, *(due - now for due in dues)])))
        self._reap()
        now = time.monotonic()
        for child in self.children.values():
            if child.due is not None and child.due <= now and not self.signals.stops:
                self._sweep(child.spec)
                self._spawn(child)
        if now >= self._next_rotation:
            self._next_rotation = now + _ROTATE_EVERY_S
            for log in {child.spec.log for child in self.children.values() if child.spec.log}:
                rotation.rotate(Path(log))

    def stop(self, names: Iterable[str] | None = None, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """TERM to each in its order, KILL to its whole group after its time-out (at once when `hurry`)."""
        chosen = [self.children[name] for name in (list(self.children) if names is None else names)]
        for child in chosen:
            child.due = None
        for order in sorted({child.spec.stop_order for child in chosen}):
            self._stop_together([child for child in chosen if child.spec.stop_order == order], hurry)
        for child in chosen:
            self._sweep(child.spec)
            self._clean_up(child.spec)
            del self.children[child.spec.name]

    def _stop_together(self, chosen: list[Child], hurry: Callable[[], bool]) -> None:
        """Back when all are gone."""
        for child in chosen:
            if child.process:
                _signal(child.process, signal.SIGTERM)
        begun = time.monotonic()
        while any(child.process for child in chosen):
            self.signals.wait(0.1)
            self._reap(ending=True)
            for child in chosen:
                if child.process and (hurry() or time.monotonic() - begun > child.spec.stop_timeout_s):
                    self.say(f"{child.spec.name} did not stop in time and is killed")
                    _kill_whole(child)

    def _spawn(self, child: Child) -> None:
        child.due = None
        child.started = time.monotonic()
        try:
            child.process = self._popen(child.spec, _open_log(child.spec.log))
            if child.spec.group:
                proc.record(Path(self.state) / "run", child.spec.name, child.process.pid)
        except OSError as error:
            self._ended(child, f"could not be started: {error.strerror or error}")

    def _popen(self, spec: ProcessSpec, log: int | None) -> subprocess.Popen[bytes]:
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP if spec.group else 0
        try:
            return subprocess.Popen(
                spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=spec.environment(os.environ),
                cwd=spec.cwd or None,
                start_new_session=spec.group,
                creationflags=flags,
            )
        finally:
            if log is not None:
                os.close(log)

    def _reap(self, *, ending: bool = False) -> None:
        for child in self.children.values():
            if child.process and (code := child.process.poll()) is not None:
                self._finish_group(child)
                child.process = None
                if not ending and not self.signals.stops:
                    self._ended(child, f"ended with {describe(code)}")
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        """As process 1 of a container we inherit orphans: instances of a dead agent, a killed worker's children."""
        if sys.platform == "win32" or os.getpid() != 1:
            return
        ours = {child.process.pid for child in self.children.values() if child.process} | self._passing
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in ours:
                return
            os.waitpid(found.si_pid, os.WNOHANG)

    def _finish_group(self, child: Child) -> None:
        """The leader is dead: nothing of its group may live on, or the next one finds its port taken."""
        if child.spec.group and child.process and sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, _KILL)

    def _ended(self, child: Child, how: str) -> None:
        where = f"; log: {child.spec.log}" if child.spec.log else ""
        if not self.restart:
            self.say(f"{child.spec.name} {how}; not restarted (--no-restart){where}")
            return
        if time.monotonic() - child.started >= _HEALTHY_AFTER_S:
            child.failures = 0
        delay = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
        child.failures += 1
        child.due = time.monotonic() + delay
        last = (last_lines(child.spec.log, 1) or [""])[0].strip()[:200] if child.failures == 1 else ""
        said = f" ({last})" if last else ""
        self.say(f"{child.spec.name} {how}{said}; next start in {delay:g} s{where}")

    def _sweep(self, spec: ProcessSpec) -> None:
        """End what a dead child has left: its own children, known by its mark."""
        left = proc.marked(self.state, lambda mark: mark == spec.mark or mark.startswith(spec.mark + "/"))
        if left:
            proc.end([found.pid for found in left], grace_s=2.0)

    def _clean_up(self, spec: ProcessSpec) -> None:
        """What the process itself could not take away: it was less trusted than we are, or was killed."""
        if not spec.cleanup:
            return
        log = _open_log(spec.log)
        try:
            subprocess.run(
                spec.cleanup, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=spec.environment(os.environ),
                cwd=spec.cwd or None, timeout=_CLEANUP_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self.say(f"what {spec.name} left could not be removed: {error}")
        finally:
            if log is not None:
                os.close(log)


def describe(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _open_log(path: str) -> int | None:
    """None: the process writes where we write (a container's own log)."""
    if not path:
        return None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o640)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        process.send_signal(number)


def _kill_whole(child: Child) -> None:
    if child.process is None:
        return
    if child.spec.group and sys.platform != "win32":
        try:
            os.killpg(child.process.pid, _KILL)
            return
        except (ProcessLookupError, PermissionError):
            pass
    child.process.kill()
