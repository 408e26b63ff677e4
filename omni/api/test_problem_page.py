"""Every code that a refusal can carry is explained where the problem's `type` leads."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from omni.kernel.errors import OmniError
from omni.kernel.problem_codes import CODES

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("omni", "consensus", "accounts", "apps", "releases", "instances", "services")
# Functions that make a refusal of a code that they are given first.
MAKERS = {"_taken": 409}
# What Django REST framework refuses by itself; `omni.rest.problem` passes its codes on.
FROM_THE_FRAMEWORK = {"method_not_allowed": 405, "not_acceptable": 406}


def _sources() -> Iterator[tuple[Path, ast.AST]]:
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            if not path.name.startswith(("test_", "conftest")) and "testing" not in path.parts:
                yield path, ast.parse(path.read_text(encoding="utf-8"))


def _tree() -> dict[str, type[OmniError]]:
    """The error classes by name, wherever they are defined."""
    for path, module in _sources():
        defines = any(isinstance(node, ast.ClassDef) and "Error" in ast.unparse(node) for node in ast.walk(module))
        if defines and "OmniError" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    found, waiting = {}, [OmniError]
    while waiting:
        kind = waiting.pop()
        found[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return found


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _raised() -> set[tuple[str, int]]:
    """(code, status) of every refusal in the code."""
    tree = _tree()
    found = {(kind.code, kind.status) for kind in tree.values() if kind.__module__.split(".")[0] in PACKAGES}
    for path, module in _sources():
        for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            name = _name(call)
            if name in MAKERS and isinstance(call.args[0], ast.Constant):
                found.add((str(call.args[0].value), MAKERS[name]))
            given = next((word.value for word in call.keywords if word.arg == "code"), None)
            if name not in tree or given is None or path.name == "problem.py":
                continue
            if isinstance(given, ast.Constant):
                found.add((str(given.value), tree[name].status))
            else:
                assert name in MAKERS or ast.unparse(given) == "code", f"{path}: {ast.unparse(call)[:80]}"
    return found | set(FROM_THE_FRAMEWORK.items()) | {("csrf", 403)}


@pytest.mark.slow
def test_the_list_of_problems_is_the_error_tree_and_every_refusal() -> None:
    listed = {(entry.code, entry.status) for entry in CODES}
    raised = _raised()
    assert raised - listed == set(), "explain these in omni/kernel/problem_codes.py"
    assert listed - raised == set(), "nothing answers these any more"


def test_each_code_is_explained_once() -> None:
    codes = [entry.code for entry in CODES]
    assert len(codes) == len(set(codes))
    assert all(entry.meaning and entry.next for entry in CODES)


@pytest.mark.django_db
def test_the_type_of_a_problem_leads_to_its_explanation_without_a_token() -> None:
    problem = Client().get("/no-such-path").json()
    page, anchor = problem["type"].split("#")
    answer = Client().get(page)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/html")
    assert f'id="{anchor}"' in answer.content.decode()
    assert anchor == problem["code"]


@pytest.mark.django_db
def test_the_page_explains_every_code_and_loads_nothing() -> None:
    page = Client().get("/docs/problems").content.decode()
    for entry in CODES:
        assert f'<section id="{entry.code}">' in page
    assert not re.search(r"https?://|<script|<link", page)
