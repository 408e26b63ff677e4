"""One file a kind. Detection: a Procfile gives the process types, the first kind that fits says what to install."""

from __future__ import annotations

from dataclasses import replace

from releases.build_errors import BuildFailed
from releases.builders import dockerfile, node, procfile, python, static
from releases.builders.base import Builder, Plan, Source
from releases.contract import IMAGE_RUNTIMES

__all__ = ["Plan", "Source", "detect"]

# `procfile` comes after the languages: it is what is left when there is nothing to install.
_KINDS: tuple[tuple[str, Builder], ...] = (
    (python.LOOKS_FOR, python.plan),
    (node.LOOKS_FOR, node.plan),
    (static.LOOKS_FOR, static.plan),
    (procfile.LOOKS_FOR, procfile.plan),
    (dockerfile.LOOKS_FOR, dockerfile.plan),
)


def detect(source: Source) -> Plan:
    """The plan for an upload. Raises BuildFailed; when nothing fits, the error says what was looked for."""
    if source.has(procfile.NAME):
        source = replace(source, procfile=procfile.parse(source.read(procfile.NAME)))
    if source.runtime in IMAGE_RUNTIMES and (found := dockerfile.plan(source)) is not None:
        return replace(found, process_types=source.procfile or found.process_types)
    for _, build in _KINDS:
        plan = build(source)
        if plan is not None:
            return replace(plan, process_types=source.procfile or plan.process_types)
    raise _nothing(source)


def _nothing(source: Source) -> BuildFailed:
    wanted = [looks_for for looks_for, _ in _KINDS]
    shown = ", ".join(source.top[:20]) + (", …" if len(source.top) > 20 else "")
    return BuildFailed(
        "nothing_detected",
        f"None of these is at the top of the upload: {'; '.join(wanted)}. Found there: {shown or 'nothing'}.",
    )
