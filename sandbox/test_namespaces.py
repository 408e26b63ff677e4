"""Becoming less: what a process sees and may do once it is root of a user namespace in a narrowed view."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import cgroups
from sandbox.namespaces import closed_above
from sandbox.test_cgroups import name as name

PROJECT = Path(__file__).parents[1]
USER, FIRST, LAST = 252_000, 251_000, 251_009
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become less in this way")


def become(code: str, *arguments: str, narrow: str = "") -> Any:
    """What `code` prints as JSON after it became USER."""
    script = f"""
import json, os, sys
sys.path.insert(0, {str(PROJECT)!r})
from sandbox import cgroups, namespaces
from sandbox.namespaces import Shown
{narrow}
namespaces.become({USER}, [({FIRST}, {LAST})])
{code}
"""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=30)
    if "Unavailable" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Below a directory that is closed to others, as /root is."""
    for part in ("open", "shown/deep", "mine", "secret"):
        (tmp_path / "top" / part).mkdir(parents=True)
        (tmp_path / "top" / part / "file").write_text(part)
    (tmp_path / "top" / "alone").write_text("alone")
    (tmp_path / "top" / "mine").chmod(0o700)
    os.chown(tmp_path / "top" / "mine", USER, USER)
    (tmp_path / "top").chmod(0o700)
    return tmp_path / "top"


def test_only_what_is_shown_is_there_and_only_what_is_writable_can_be_written(folder: Path) -> None:
    narrow = f"""
top = {str(folder)!r}
closed = namespaces.closed_above(top + "/mine", {USER})
# what lies deeper in a closed directory is hidden as well, and a file can stand in for another
namespaces.narrow({{closed, top + "/shown"}}, [Shown(top + "/mine", writable=True), Shown(top + "/shown/deep"),
                  Shown(top + "/alone"), Shown(top + "/other", source=top + "/alone")])
"""
    code = f"""
top = {str(folder)!r}
def denied(act):
    try: act()
    except OSError as error: return error.errno
print(json.dumps({{
    "top": sorted(os.listdir(top)), "shown": os.listdir(top + "/shown"), "file": open(top + "/shown/deep/file").read(),
    "alone": open(top + "/alone").read(), "other": open(top + "/other").read(),
    "write": open(top + "/mine/new", "w").write("x"),
    "denied": [denied(lambda: open(top + path, "w")) for path in ("/shown/deep/new", "/alone", "/new")],
    "others": [denied(lambda: os.chown(top + "/mine/new", {FIRST}, {FIRST})), denied(lambda: os.setuid(0)),
               denied(lambda: os.chown(top + "/mine/new", 1, 1))],
}}))
"""
    said = become(code, narrow=narrow)
    assert said["top"] == ["alone", "mine", "other", "shown"]
    assert (said["shown"], said["file"], said["alone"], said["other"]) == (["deep"], "shown/deep", "alone", "alone")
    assert said["write"] == 1
    assert all(said["denied"])
    assert said["others"][:2] == [None, None], "its own users it may use, and being root of them is no news"
    assert said["others"][2], "nobody else's"
    assert sorted(path.name for path in folder.iterdir()) == ["alone", "mine", "open", "secret", "shown"]
    assert (folder / "mine" / "new").stat().st_uid == FIRST


def test_the_way_to_a_path_is_looked_at_from_the_top(folder: Path, tmp_path: Path) -> None:
    for above in [tmp_path, *tmp_path.parents]:
        if not above.stat().st_mode & 0o001:
            assert closed_above(str(folder / "open"), USER) is not None
            return
    assert closed_above(str(folder / "open"), USER) == str(folder)
    assert closed_above(str(folder / "open"), 0) is None
    assert closed_above("/usr/bin/env", USER) is None


def test_cgroups_below_a_delegated_directory_are_its_own_and_no_others(name: str) -> None:
    parent = f"{cgroups.PARENT}/{name}"
    code = f"""
group = cgroups.Group.create("one", 32 << 20, pids=10, layout=cgroups.layout_below({parent!r}))
import subprocess
done = subprocess.run(group.enter(["/bin/sh", "-c", "echo in"]), capture_output=True, text=True)
with subprocess.Popen(group.enter(["/bin/sleep", "600"])) as process:
    import time
    end = time.monotonic() + 10
    while process.pid not in group.pids() and time.monotonic() < end: time.sleep(0.01)
    inside = group.pids()
    gone = group.kill()
try:
    outside = cgroups.Group.create({name!r} + "-other", 32 << 20)
except cgroups.Unavailable:
    outside = None
print(json.dumps([done.stdout, group.memory_limit(), len(inside), gone, group.remove(), outside is None]))
"""
    try:
        python = f"closed = namespaces.closed_above(sys.base_prefix, {USER})\n"
        python += "namespaces.narrow([closed] if closed else [], [Shown(sys.base_prefix)])\n"
        said = become(code, narrow=f"{python}cgroups.delegate({parent!r}, {USER})")
    finally:
        cgroups.remove_parent(parent)
    assert said == ["in\n", 32 << 20, 1, True, True, True]
    assert not list(cgroups.MOUNT.glob(f"*/{parent}"))
