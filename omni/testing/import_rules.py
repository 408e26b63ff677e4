"""Runs import-linter with the rules of .importlinter, tests left out: `python -m omni.testing.import_rules`.

The rules hold for the product; a test beside the code may take its factories from anywhere. import-linter cannot leave
modules out by pattern, so the line `@tests` of the file is replaced by the names of the test modules that there are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120


def modules_of_tests(project: Path) -> list[str]:
    """Dotted names of the modules beside the code that only tests import."""
    found = []
    for folder in (path.parent for path in project.glob("*/__init__.py")):
        for pattern in ("test_*.py", "conftest.py"):
            found += [path.relative_to(project).with_suffix("") for path in folder.rglob(pattern)]
    return [*sorted(".".join(path.parts) for path in found), "omni.testing.**"]


def expanded(rules: str, modules: list[str]) -> str:
    lines = "\n".join(f"    {module} -> **" for module in modules)
    return rules.replace("    @tests", lines)


def main() -> int:
    rules = expanded((PROJECT / ".importlinter").read_text(encoding="utf-8"), modules_of_tests(PROJECT))
    with tempfile.NamedTemporaryFile("w", suffix=".ini", encoding="utf-8") as file:
        file.write(rules)
        file.flush()
        command = [str(Path(sys.executable).with_name("lint-imports")), "--config", file.name, "--no-cache"]
        return subprocess.run(command, cwd=PROJECT, timeout=_TIMEOUT_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
