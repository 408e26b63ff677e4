"""The user's command line, given to a shell without keeping the shell.

Pure. A shell that stays around takes memory and gets the signals that are meant for the program.
"""

from __future__ import annotations

import re

_SIMPLE = re.compile(r"\s*([A-Za-z0-9_./-]+)(?:\s[^;&|()`\n]*)?\Z")
_OF_THE_SHELL = frozenset(
    ". : [ alias bg case cd command echo eval exec exit export false fg for getopts hash if jobs kill local printf "  # noqa: SIM905 (a list of words reads better as words)
    "pwd read readonly return set shift test times trap true type ulimit umask unalias unset until wait while".split()
)


def shell_line(command: str) -> str:
    """The line to give to the shell: for one plain command, the shell is to become it. The rest stays as written."""
    plain = _SIMPLE.match(command)
    if plain is None or plain.group(1) in _OF_THE_SHELL:
        return command
    return f"exec {command.lstrip()}"
