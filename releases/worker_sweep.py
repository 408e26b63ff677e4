"""What a build worker that was killed leaves on its host, and removing it: rooms, cgroups, the packet filter's table.

Everything of one worker directory carries its tag, so that two platforms on one host never touch each other's. Safe
beside a living worker: rooms in use are locked. `python -m releases.worker_sweep DIRECTORY` is for whoever stopped
the worker; the worker itself sweeps when it starts.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from releases.build_sandbox import remove_unless_busy
from sandbox import cgroups, network


def tag_of(directory: Path) -> str:
    """Tells the cgroups, nft table and temporary directories of one worker from those of others on the host."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:10]


def table_of(directory: Path) -> str:
    """The nft table of the worker: a restart replaces it."""
    return f"omni_build_{tag_of(directory)}"


def groups_of(directory: Path) -> str:
    """The parent of the cgroups of one worker's builds."""
    return f"{cgroups.PARENT}/builder-{tag_of(directory)}"


def sweep(directory: Path) -> None:
    """Remove the rooms that nobody works in any more, with the cgroups of their attempts.

    As root this walks through what a build may have got hold of: no link is followed, nothing is opened that waits.
    """
    tag = tag_of(directory)
    rooms = directory / "builds"
    roots = [*(rooms.iterdir() if rooms.is_dir() else ()), *Path(tempfile.gettempdir()).glob(f"omni-build-{tag}-*")]
    busy = set()
    for root in roots:
        if root.is_symlink() or not root.is_dir():
            root.unlink(missing_ok=True)
        elif not remove_unless_busy(root):
            busy.add(root.name)
    try:
        layout = cgroups.layout_below(groups_of(directory))
    except cgroups.Unavailable:
        return
    for name in cgroups.names(f"build-{tag}-", layout):
        group = cgroups.Group.open(name, layout)
        attempt = name.removeprefix(f"build-{tag}-")
        if group and not any(root == attempt or root.endswith(f"-{attempt}") for root in busy):
            group.kill()
            group.remove()


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m releases.worker_sweep DIRECTORY\n")
        return 2
    directory = Path(sys.argv[1]).absolute()
    sweep(directory)
    cgroups.remove_parent(groups_of(directory))
    try:
        network.remove(table_of(directory))
    except network.Unavailable:
        return 0  # where there is no packet filter there is no table
    return 0


if __name__ == "__main__":
    sys.exit(main())
