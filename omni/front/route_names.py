"""Which route a path belongs to, as `/metrics` names it: `/app/{app}/info`.

Owns the names, made once from the URL map, so that a path that a stranger thinks up never becomes a label. Decides
nothing: who answers a request is `application.py`'s business.
"""

from __future__ import annotations

import re
from functools import lru_cache

from django.urls import URLPattern, get_resolver

OTHER = "other"  # what no route has
CONSOLE = "/admin/"
_VARIABLE = re.compile(r"<(?:(\w+):)?(\w+)>")


@lru_cache(maxsize=1)
def _names() -> tuple[frozenset[str], re.Pattern[str], list[str]]:
    """Plain paths; the others as one expression, whose last group tells which it was; their names."""
    plain: set[str] = set()
    forms: list[str] = []
    names: list[str] = []
    for route in get_resolver().url_patterns:
        if not isinstance(route, URLPattern):
            continue
        text = "/" + str(route.pattern)
        if "<" not in text:
            plain.add(text)
            continue
        names.append(_VARIABLE.sub(r"{\2}", text))
        pieces, last = [], 0
        for found in _VARIABLE.finditer(text):
            pieces += [re.escape(text[last : found.start()]), "[0-9]+" if found[1] == "int" else "[^/]+"]
            last = found.end()
        forms.append("(" + "".join([*pieces, re.escape(text[last:])]) + ")")
    return frozenset(plain), re.compile("|".join(forms) or "(?!)"), names


def name_of(path: str) -> str:
    plain, expression, names = _names()
    if path in plain:
        return path
    if path.startswith((CONSOLE, "/static/")):
        return CONSOLE if path.startswith(CONSOLE) else "/static/"
    found = expression.fullmatch(path)
    return names[found.lastindex - 1] if found is not None and found.lastindex else OTHER
