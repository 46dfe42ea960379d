"""`@limited(...)`: check one view against the policies, plain or async, function or method of a class-based view.

@limited(cost={"requests": 5})
def export(request): ...

@method_decorator(limited(keys=lambda request, chat_id: {"chat": chat_id}), name="dispatch")
class Messages(View): ...

On a method of a class it works without `method_decorator`, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from quotas.services.limits import Check
from quotas.web import enforcement

Given = Any
"""A value, or a callable(request, *args, **kwargs) that gives it."""


def limited(
    *,
    cost: int | Mapping[str, int] | Callable[..., Any] | None = None,
    user: str | Callable[..., Any] | None = None,
    project: str | Callable[..., Any] | None = None,
    endpoint: str | Callable[..., Any] | None = None,
    keys: Mapping[str, str] | Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Check before the view runs: 429 (or 403, 422, 503) as a problem instead of its answer, else its answer with the
    rate limit fields. What is not given comes from the request and the `SLUICE` settings.
    """
    given = {"cost": cost, "user": user, "project": project, "endpoint": endpoint, "keys": keys}

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        async def limited_async(*args: Any, **kwargs: Any) -> Any:
            request, own = _request_of(args)
            return await enforcement.guard_async(
                request, lambda: _check_of(request, given, own, kwargs), lambda: view(*args, **kwargs)
            )

        if iscoroutinefunction(view):
            return limited_async

        @wraps(view)
        def limited_sync(*args: Any, **kwargs: Any) -> Any:
            # `dispatch` of a class with async handlers is a plain function that returns a coroutine.
            if _on_event_loop():
                return limited_async(*args, **kwargs)
            request, own = _request_of(args)
            return enforcement.guard(request, _check_of(request, given, own, kwargs), lambda: view(*args, **kwargs))

        return limited_sync

    return decorate


def _request_of(args: tuple[Any, ...]) -> tuple[HttpRequest, tuple[Any, ...]]:
    """The request and the view's own arguments behind it: of a method, the first one is the view."""
    place = 0 if not args or hasattr(args[0], "META") else 1
    return args[place], args[place + 1 :]


def _on_event_loop() -> bool:
    """Whether this thread runs a loop; Django calls plain views in threads that don't."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check_of(request: HttpRequest, given: Mapping[str, Given], args: Any, kwargs: Any) -> Check:
    named = {
        name: value(request, *args, **kwargs) if callable(value) else value
        for name, value in given.items()
        if value is not None
    }
    return enforcement.check_of(request, **named)
