"""What every runtime driver promises.

Owns the contract: the words, the data, the errors. A driver runs one process tree per instance id on this host and
knows nothing of desired state, back-off, health or logs. All verbs are coroutines, bounded in time, safe to repeat,
and safe to call after a restart of the agent, because whatever a driver must remember it keeps outside the agent.

The three errors separate *no* from *not now* from *don't know*:

    Refused      never: this instance cannot run here, whoever tries again. The caller fails it.
    Unavailable  not now: nothing was started or changed. The caller tries again later.
    Unknown      the outcome could not be learnt. The caller observes before it does anything else.

What the verbs guarantee:

    probe    says what this host can do, from real trials. Never raises; notes say what is missing and why.
    start    when it returns, a process tree of this instance runs (or has already ended) with output going to the
             given files, and the handle is kept where `recover` finds it. *Idempotent by instance id*: when one is
             running it is left alone and its handle returned. If the caller dies in the middle, either nothing runs or
             `recover` finds it: the program does not begin before the handle is on disk.
    recover  the handle of the instance's latest start, running or ended, or None when there was none.
    observe  running, or ended with exit code or signal as far as anybody knows; `absent` when the handle's process is
             gone and nobody saw how (host rebooted, the watcher was killed). Asks the system, never memory.
    wait     returns soon (< 1 s) after observe would no longer say `running`; also for an adopted process.
    stop     asks politely, once per call: SIGTERM reaches the program itself, not what is wrapped around it.
    kill     when it returns, no process of the tree is left, including those that left session and process group.
             Nothing is sent to pids that no longer belong to the instance.
    stats    CPU time used and memory held by the whole tree now; None where it cannot be measured.
    execute  runs a command beside the program, with the same user, limits and files; ends it at the time-out.
    enter    runs a command among the program's own processes (namespaces, user, limits) for somebody to talk to;
             whoever asked ends it. Refused where a runtime or a host cannot.
    listening  the TCP ports that the tree listens on, lowest first; None where nobody can say. For explanations only.
    endpoint where the program answers, where that is not the node's address and the launch's $PORT.
    close    the agent leaves; whatever runs stays.
    remove   kill, then forget everything that the driver kept outside the instance's directory.
    strays   ids of instances of this node that have processes, however they came to be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.runtimes.entering import Entered, Entry

Handle = dict[str, Any]


class RuntimeFault(Exception):
    """Base of the three answers that are not success; the text is for people."""


class Refused(RuntimeFault):
    """Never: fail the instance."""


class Unavailable(RuntimeFault):
    """Not now: retry later."""


class Unknown(RuntimeFault):
    """Nobody knows: observe first."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What probe found; the words are those of `agent.protocol.NodeFacts`."""

    available: bool
    isolation: str
    limits: str
    network: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume: `source` of this host appears as `target`, to be written to, and outlives the instance."""

    name: str
    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Launch:
    """One instance to run. `directory` is its own on this host; `tree` the unpacked release, shared, not to be written;
    `home` the one place where it may keep files, but for `volumes`. `cpu_weight` 1.0 is normal; `cpu_limit` in cores.
    `image` is the engine's id of the release when that is an image and no folder; an empty `command` is then the
    image's own. `may_move`: an engine of several nodes may start it again elsewhere by itself; `stop_timeout_s` is what
    such an engine gives it between the polite stop and the other."""

    instance_id: int
    app_id: int
    command: str
    env: dict[str, str]
    directory: Path
    tree: Path
    home: Path
    stdout: Path
    stderr: Path
    memory_bytes: int
    cpu_weight: float = 1.0
    cpu_limit: float | None = None
    hostname: str = "omni"
    image: str = ""
    volumes: tuple[Mounted, ...] = ()
    may_move: bool = False
    stop_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Observation:
    """`code` and `signal` exclude each other and are None unless `state` is ended."""

    state: Literal["running", "ended", "absent"]
    code: int | None = None
    signal: int | None = None
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Stats:
    """`network_*` count from the start; None where the network is shared with others."""

    cpu_us: int | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    network_rx_bytes: int | None = None
    network_tx_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a program answers. `routed`: the ingress is to go there too. `place`: the node of an engine's own cluster
    on which it runs, where that is not this host."""

    host: str
    port: int
    routed: bool
    place: str = ""


@dataclass(frozen=True, slots=True)
class Executed:
    """`code` None: it did not end in time."""

    code: int | None
    output: str


class Runtime(ABC):
    """See the module's text for what each verb guarantees."""

    name: str

    @abstractmethod
    async def probe(self) -> Capabilities: ...

    @abstractmethod
    async def start(self, launch: Launch) -> Handle: ...

    @abstractmethod
    async def recover(self, instance_id: int) -> Handle | None: ...

    @abstractmethod
    async def observe(self, handle: Handle) -> Observation: ...

    @abstractmethod
    async def wait(self, handle: Handle) -> None: ...

    @abstractmethod
    async def stop(self, handle: Handle) -> None: ...

    @abstractmethod
    async def kill(self, handle: Handle) -> None: ...

    @abstractmethod
    async def stats(self, handle: Handle) -> Stats: ...

    @abstractmethod
    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed: ...

    async def enter(self, launch: Launch, handle: Handle, entry: Entry) -> Entered:
        raise Refused(f"the runtime {self.name} has no way to run a command in an instance")

    async def listening(self, handle: Handle) -> tuple[int, ...] | None:
        return None

    async def endpoint(self, handle: Handle) -> Endpoint | None:
        return None

    async def close(self) -> None:
        return None

    @abstractmethod
    async def remove(self, handle: Handle) -> None: ...

    @abstractmethod
    async def strays(self) -> dict[int, Handle]: ...
