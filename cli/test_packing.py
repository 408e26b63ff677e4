"""What goes into an upload: as git would have it, the same bytes for the same folder."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.errors import CommandError
from cli.packing import members, pack

names = st.sampled_from(["a", "b", "c.log", "d.txt", "build", "src"])
patterns = st.sampled_from(
    [
        "*.log",
        "!c.log",
        "/a",
        "build/",
        "src/*",
        "!src/a",
        "**/d.txt",
        "a/b",
        "# no",
        "",
        "!build/",
        "src/**/a",
        "/b/",
        "src/**",
        "[ab]",
        "[!a]",
        "?",
        "\\a",
        "*",
        "!*/",
        "**/build/**",
        "a/**/b",
        "!/src",
        "[",
        "d* ",
    ]
)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.sets(st.lists(names, min_size=1, max_size=3).map(tuple), min_size=1, max_size=12),
    top=st.lists(patterns, max_size=4),
    inner=st.lists(patterns, max_size=3),
)
def test_ignore_rules_mean_what_they_mean_to_git(tmp_path_factory, files, top, inner) -> None:
    folder = tmp_path_factory.mktemp("repo")
    for parts in files:
        path = folder.joinpath(*parts)
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (folder / ".gitignore").write_text("\n".join(top) + "\n")
    if (folder / "src").is_dir():
        (folder / "src" / ".gitignore").write_text("\n".join(inner) + "\n")
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", "init", "-q", str(folder)], env=env, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert {name for name, _ in members(folder)} == set(listed.stdout.splitlines())


def test_the_same_folder_is_the_same_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "run").write_text("#!/bin/sh\n")
    (folder / "bin" / "run").chmod(0o700)
    (folder / "link").symlink_to("bin/run")
    os.link(folder / "bin" / "run", folder / "twin")
    for left_out in (".git", "node_modules", ".venv", "bin/__pycache__"):
        (folder / left_out).mkdir()
        (folder / left_out / "file").write_text("x")
    first, second = pack(folder, tmp_path / "1"), pack(folder, tmp_path / "2")
    assert first.sha256 == second.sha256
    assert first.files == 3
    with tarfile.open(tmp_path / "1") as archive:
        found = {info.name: info for info in archive.getmembers()}
        assert set(found) == {"bin/run", "link", "twin"}
        assert (found["bin/run"].mode, found["bin/run"].uid, found["bin/run"].uname) == (0o755, 0, "")
        assert found["link"].linkname == "bin/run"
        twin = archive.extractfile("twin")
        assert twin is not None
        assert twin.read() == b"#!/bin/sh\n"


def test_omniignore_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("dist/\n*.map\n")
    (tmp_path / ".omniignore").write_text("!dist/\ndocs/\n.omniignore\n")
    for name in ("dist/app.js", "dist/app.map", "docs/a.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert {name for name, _ in members(tmp_path)} == {".gitignore", "dist/app.js"}


def test_nothing_to_pack_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="nothing to upload"):
        pack(tmp_path / "empty", tmp_path / "out")
