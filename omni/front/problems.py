"""Problems that the front answers itself, before or instead of Django."""

from __future__ import annotations

from omni.front.requests import Answer
from omni.kernel.context import new_request_id, request_id
from omni.kernel.errors import OmniError
from omni.rest import problem
from omni.rest.rendering import dumps


def answer(error: OmniError, node: str, rid: str = "") -> Answer:
    """The error as problem+json with the headers that every answer has."""
    rid = rid or new_request_id()
    token = request_id.set(rid)
    try:
        body = dumps(problem.body(error))
    finally:
        request_id.reset(token)
    headers = [("content-type", problem.MEDIA_TYPE), ("content-length", str(len(body))), ("Request-Id", rid),
               ("Omni-Node", node), *problem.headers(error).items()]  # fmt: skip
    return Answer(error.status, headers, body)
