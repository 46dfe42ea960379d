"""The login page, throttled by the product's own limiter against password guessing.

A try counts before the password is checked, so that tries at the same moment count, too. One that succeeds is given
back. While Redis is unavailable each web process counts for itself, so that operators can sign in during an outage.
"""

from __future__ import annotations

import math
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.cache import add_never_cache_headers
from unfold.forms import AuthenticationForm

from quotas import events
from quotas.engine.types import Decision, Limit
from quotas.runtime.connection import limiter
from quotas.web.identity import client_ip

BY_ADDRESS, ADDRESS_WINDOW = 20, 300.0
BY_NAME, NAME_WINDOW = 100, 3600.0
"""Higher and slower than by address: attempts on a name must not lock its owner out for long."""
_WAIT = "_sluice_login_wait"


class LoginForm(AuthenticationForm):
    def clean(self) -> Any:
        wait = getattr(self.request, _WAIT, None)
        if wait is not None:
            raise forms.ValidationError(f"Too many attempts. Try again in {_in_words(wait)}.", code="throttled")
        return super().clean()


admin.site.login_form = LoginForm


def login(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return admin.site.login(request)
    tried = _try(request)
    if not tried.allowed:
        return _refused(request, tried)
    answer = admin.site.login(request)
    if request.user.is_authenticated and answer.status_code == 302 and tried.reservation:
        limiter().settle(tried.reservation, {"requests": 0})
    return answer


def _try(request: HttpRequest) -> Decision:
    address = client_ip(request) or "unknown"
    name = request.POST.get("username", "")[:254].lower()
    return limiter().check(
        [
            _limit("login-address", address, BY_ADDRESS, ADDRESS_WINDOW),
            _limit("login-name", name, BY_NAME, NAME_WINDOW),
        ],
        reserve=True,
    )


def _limit(name: str, subject: str, limit: int, window: float) -> Limit:
    return Limit(
        id=name, name=name, scope="global", subject=subject, algorithm="sliding_window", limit=limit, window=window,
        on_redis_down="fail_open",
    )  # fmt: skip


def _refused(request: HttpRequest, tried: Decision) -> HttpResponse:
    wait = max(1, math.ceil(tried.retry_after or 1.0))
    events.emit(events.LoginThrottled(tried.binding or "", client_ip(request) or "", wait))
    setattr(request, _WAIT, wait)
    answer = admin.site.login(request)
    answer.status_code = 429
    answer.headers["Retry-After"] = str(wait)
    add_never_cache_headers(answer)
    return answer


def _in_words(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"
