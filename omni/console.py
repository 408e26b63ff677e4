"""The operator console: Django's admin with a modern theme, read-only where no verb exists yet.

Owns the admin site and the base class of every registration. Every POST goes through the gate; status fields can
never be edited by hand.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.auth.forms import AuthenticationForm
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.sites import UnfoldAdminSite

Row = TypeVar("Row", bound=Model)


class Login(AuthenticationForm):
    """Whoever has a password may try; `ConsoleSite.has_permission` says who gets in."""


class ConsoleSite(UnfoldAdminSite):  # type: ignore[misc]
    """`/admin/`: for operators, and for members of an org, who see what is that org's."""

    login_form = Login
    site_title = "Omni"
    site_header = "Omni Orchestrator"
    index_title = "Platform"
    final_catch_all_view = False  # `omni.pages.frame.nowhere` answers for what is no page

    def has_permission(self, request: HttpRequest) -> bool:
        user = request.user
        if not user.is_active or not user.is_authenticated:
            return False
        return bool(getattr(user, "is_superuser", False) or user.memberships.exists())


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]
    """Look, don't touch: what can be done is done by verbs."""

    change_list_template = "console/record_list.html"
    change_form_template = "console/record.html"
    list_per_page = 50
    show_full_result_count = False  # no COUNT(*) over a large table

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and getattr(request.user, "is_superuser", False))


def register(model: type[Row], *, columns: tuple[str, ...], filters: tuple[str, ...] = (), search: tuple[str, ...] = (),
             related: tuple[str, ...] = (), hidden: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Show a model in the console; `hidden` fields (sealed values, digests) are left out."""
    attributes = {
        "list_display": columns,
        "list_filter": filters,
        "search_fields": search,
        "list_select_related": related or False,
        "exclude": hidden,
    }
    admin.site.register(model, type(f"{model.__name__}Admin", (ReadOnlyAdmin,), attributes))
