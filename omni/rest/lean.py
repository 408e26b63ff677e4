"""Requests that are asked for often, without DRF's request and response machinery.

Owns a shortcut through a ViewSet: the same scopes, the same authentication, the same parser, the same handler and the
same problems, about 150 µs less per request (of 320 µs for a DRF view that computes nothing). Any action whose input is
JSON or nothing may take it, by its name in `lean`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.viewsets import ViewSet

from omni.kernel.context import ANONYMOUS, Actor
from omni.rest import problem
from omni.rest.permissions import require
from omni.rest.rendering import JsonOnly, OrjsonParser, Rendered, dumps

_PARSER = OrjsonParser()
_NEGOTIATION = JsonOnly()
_NO_QUERY = QueryDict()  # immutable
_CLASSES: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
_AUTHENTICATOR = _CLASSES[0]()


class _Headers:
    """Request headers by name, looked up where WSGI keeps them."""

    __slots__ = ("_meta",)

    def __init__(self, meta: dict[str, Any]) -> None:
        self._meta = meta

    def get(self, name: str, default: Any = None) -> Any:
        return self._meta.get("HTTP_" + name.upper().replace("-", "_"), default)

    def __getitem__(self, name: str) -> Any:
        return self._meta["HTTP_" + name.upper().replace("-", "_")]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


class LeanRequest:
    """What a handler uses of DRF's request."""

    __slots__ = ("META", "_data", "_request", "auth", "headers", "method", "path", "user")

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._data: Any = None
        self.META: dict[str, Any] = request.META
        self.method = request.method
        self.path = request.path
        self.headers = _Headers(request.META)
        found: tuple[Any, Actor] | None = _AUTHENTICATOR.authenticate(request)
        self.user: Any = found[0] if found is not None else None
        self.auth: Actor = found[1] if found is not None else ANONYMOUS

    @property
    def query_params(self) -> QueryDict:
        return self._request.GET if self.META.get("QUERY_STRING") else _NO_QUERY

    @property
    def content_type(self) -> str:
        return str(self.META.get("CONTENT_TYPE", ""))

    @property
    def data(self) -> Any:
        """The body, parsed when it is asked for first. Raises Malformed, UnsupportedMediaType."""
        if self._data is None:
            self._data = self._parse()
        return self._data

    def _parse(self) -> Any:
        raw = self._request.body
        if not raw:
            return {}
        if _NEGOTIATION.select_parser(self, [_PARSER]) is None:  # type: ignore[arg-type]  # asks for content_type only
            raise UnsupportedMediaType(self.content_type)
        return _PARSER.loads(raw)


class LeanViewSet(ViewSet):
    """A ViewSet whose actions named in `lean` take the shortcut."""

    lean: ClassVar[frozenset[str]] = frozenset()
    scopes: ClassVar[dict[str, str]] = {}

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        action = self.action_map.get(str(request.method).lower(), "")
        if action not in self.lean:
            return super().dispatch(request, *args, **kwargs)
        return self.lean_answer(request, action, kwargs)

    @classmethod
    def lean_answer(cls, request: HttpRequest, action: str, given: dict[str, Any]) -> HttpResponseBase:
        """The answer of `action` to a request for the path variables `given`."""
        view = cls()
        view.action = action
        try:
            lean = LeanRequest(request)
            require(lean.auth, cls.scopes[action])
            answer = getattr(view, action)(lean, **given)
        except Exception as error:
            return problem.response(problem.translate(error))
        if isinstance(answer, Rendered) or not isinstance(answer, Response):
            return answer
        body = answer.data if isinstance(answer.data, bytes) else (b"" if answer.data is None else dumps(answer.data))
        headers = {name: value for name, value in answer.items() if name != "Content-Type"}
        return HttpResponse(body, status=answer.status_code, content_type="application/json", headers=headers)
