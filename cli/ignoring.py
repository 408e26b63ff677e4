"""The rules of an ignore file, as git reads them.

Owns turning patterns into a verdict on one path, and nothing else; pure. Not by a library: those answer for a path with
all its parents, while a walk that does not enter what is left out needs the verdict on the path alone (the tests
compare it with git's own).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    pattern: re.Pattern[str]
    leave_out: bool
    directories_only: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """Those of one file, for what lies under `directory` (relative to the top: "" or with a slash at its end)."""

    directory: str
    rules: tuple[Rule, ...]

    def says(self, path: str) -> bool | None:
        """True: leave `path` out, False: take it in after all, None: nothing; a directory ends with a slash."""
        inner = path.removeprefix(self.directory)
        for rule in reversed(self.rules):
            if rule.directories_only and not inner.endswith("/"):
                continue
            if rule.pattern.fullmatch(inner.removesuffix("/")):
                return rule.leave_out
        return None


def parse(lines: Iterable[str], directory: str = "") -> Rules:
    found = (_rule(line) for line in lines)
    return Rules(directory, tuple(rule for rule in found if rule is not None))


def _rule(line: str) -> Rule | None:
    text = line.rstrip("\r\n")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    leave_out = not text.startswith("!")
    text = text.removeprefix("!")
    directories_only = text.endswith("/")
    text = text.removesuffix("/")
    anchored = "/" in text
    try:
        pattern = re.compile(("" if anchored else "(?:.*/)?") + _expression(text.removeprefix("/")), re.DOTALL)
    except re.error:
        return None  # git, too, takes a broken pattern for one that matches nothing
    return Rule(pattern, leave_out, directories_only) if text else None


_TOKEN = re.compile(
    r"(?P<start>^\*\*/)|(?P<middle>/\*\*(?=/))|(?P<end>/\*\*$)|(?P<stars>\*+)|(?P<one>\?)"
    r"|(?P<set>\[[!^]?\]?[^\]]*\])|\\(?P<escaped>.)|(?P<plain>.)",
    re.DOTALL,
)


def _expression(text: str) -> str:
    return "".join(_translate(match) for match in _TOKEN.finditer(text))


def _translate(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match.group(match.lastgroup or 0)
    if kind == "set":
        body = found[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"(?!/)[{'^' + body[1:] if body[0] in '!^' else body}]"
    fixed = {"start": "(?:.*/)?", "middle": "(?:/.*)?", "end": "/.+", "stars": "[^/]*", "one": "[^/]"}
    return fixed[kind] if kind in fixed else re.escape(found)
