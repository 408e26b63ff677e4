"""Password login of the console. Checks passwords and changes nothing else.

Django would re-hash an old password and stamp `last_login` on every log-in, both ungated writes that a follower must
not make (DECISIONS 4).
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User, update_last_login
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest


class ConsoleBackend(ModelBackend):
    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if not username or password is None:
            return None
        user = User.objects.filter(username=username).first()
        if user is None:
            User().set_password(password)  # the same time as for a known user
            return None
        if check_password(password, user.password) and self.user_can_authenticate(user):
            return user
        return None


def switch_off_last_login() -> None:
    user_logged_in.disconnect(update_last_login, dispatch_uid="update_last_login")
