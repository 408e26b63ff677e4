"""docs/builds.md names every error code that a build can end with, and no other."""

import re
from pathlib import Path

import pytest

from releases import image_errors

PROJECT = Path(__file__).parents[1]
CODE = re.compile(
    r'(?:BuildFailed|BadArchive|Failure|Failed)\(\s*"([a-z_]+)"|failure="([a-z_]+)"|failure: str = "([a-z_]+)"'
)


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease is needed here: nothing is written."""


def test_every_error_code_is_documented_and_none_is_invented() -> None:
    files = [*PROJECT.glob("releases/**/*.py"), *PROJECT.glob("sandbox/archive*.py")]
    text = "".join(file.read_text() for file in files if not file.name.startswith("test_"))
    used = {code for groups in CODE.findall(text) for code in groups if code}
    used |= {code for _, code, _ in image_errors.RULES} | {code for code, _ in image_errors.OTHERWISE.values()}
    page = (PROJECT / "docs" / "builds.md").read_text()
    documented = set(re.findall(r"`([a-z_]+)`", page[page.index("## When it fails") :]))
    assert used == documented
