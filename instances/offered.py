"""Which runtimes the nodes offer: what an app may wish for.

Owns the answer that `apps.runtimes` asks for. A node that is lost for the moment still counts: it may come back.
"""

from __future__ import annotations

from instances.models import Node

_SHOWN = 3


def missing(runtime: str) -> str | None:
    """Why no node has this runtime, node by node; None when one has it."""
    found = list(Node.objects.values_list("name", "facts").order_by("name"))
    if any(runtime in facts.get("runtimes", ()) for _, facts in found):
        return None
    reasons = [f"{name}: {facts.get('without', {}).get(runtime, 'it says nothing of it')}" for name, facts in found]
    said = "; ".join(reasons[:_SHOWN]) or "there is no node"
    return f"No node has the {runtime} runtime ({said}). GET /nodes shows what each has."
