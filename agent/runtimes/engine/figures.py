"""What a container uses, read from this host's kernel: milliseconds for a hundred; the engine takes a second each.

Owns reading /proc and the cgroups of a container's first process. Where the engine runs elsewhere nothing can be read,
and the answer is None, never 0: a pid counts as the container's only while its cgroup carries the container's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent import procfs
from sandbox.cgroup_layouts import V1, V2, Layout
from sandbox.cgroups import MOUNT

_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernel accounts for one container."""

    pid: int
    layout: Layout | None
    name: str

    def cpu_us(self) -> int | None:
        return None if self.layout is None else self.layout.cpu_usage_us(self.name)

    def memory_bytes(self) -> int | None:
        return None if self.layout is None else self.layout.memory_current(self.name)

    def memory_limit_bytes(self) -> int | None:
        return None if self.layout is None else self.layout.memory_limit(self.name)

    def network_bytes(self) -> tuple[int | None, int | None]:
        """Received and sent by all of its interfaces but loopback."""
        try:
            lines = Path(f"/proc/{self.pid}/net/dev").read_text(encoding="ascii").splitlines()[2:]
        except OSError:
            return None, None
        received = sent = 0
        for line in lines:
            name, _, rest = line.partition(":")
            words = rest.split()
            if name.strip() != "lo" and len(words) >= 9:
                received, sent = received + int(words[0]), sent + int(words[8])
        return received, sent

    def listening(self) -> tuple[int, ...]:
        """TCP ports that something in its network listens on for others than itself, lowest first."""
        ports: set[int] = set()
        for family in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{self.pid}/net/{family}").read_text(encoding="ascii").splitlines()[1:]
            except OSError:
                continue
            for words in map(str.split, lines):
                address, _, port = words[1].partition(":")
                if words[3] == _LISTEN and not address.endswith("7F"):  # the engine's own resolver is at 127.0.0.11
                    ports.add(int(port, 16))
        return tuple(sorted(ports))


def place_of(pid: int, container: str) -> Place | None:
    """None when that process is not on this host, or not (any more) the container's."""
    found: tuple[str, str] | None = None
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if container in path and (found is None or controllers == "memory"):
            found = controllers, path
    if pid <= 0 or found is None or procfs.read(pid) is None:
        return None
    parent, _, name = found[1].strip("/").rpartition("/")
    layouts: list[Layout] = [V1(MOUNT, parent)] if found[0] else [V2(MOUNT, parent)]
    here = [layout for layout in layouts if all(path.is_dir() for path in layout.directories(name))]
    return Place(pid, here[0] if here else None, name)
