"""Changes a module of the product right after its first import: how a planted defect gets into real processes.

A mutant is a folder whose `sitecustomize.py` calls `patch`; the lab puts the folder on PYTHONPATH. Nothing of this is
in the product, which therefore has no switch that could be left on.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Change = Callable[[Any], None]
_changes: dict[str, Change] = {}


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader, change: Change) -> None:
        self._real, self._change = real, change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        self._change(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _changes[name])
        return spec


def patch(name: str, change: Change) -> None:
    if not _changes:
        sys.meta_path.insert(0, _Finder())
    _changes[name] = change
