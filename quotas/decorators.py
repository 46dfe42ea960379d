"""`@limited(...)`: policies held against one view, plain or async, function or method of a class-based view.

@limited(cost={"requests": 5})
def export(request): ...

@method_decorator(limited(keys=lambda request, chat_id: {"chat": chat_id}), name="dispatch")
class Messages(View): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import isawaitable
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
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
        async def held_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            answer = await sync_to_async(lambda: enforcement.enforce(_asked(request, given, args, kwargs)))()
            if isinstance(answer, enforcement.Refused):
                return answer.response
            passed = enforcement.Passed(answer)
            try:
                response = view(request, *args, **kwargs)
                if isawaitable(response):
                    response = await response
            except BaseException as error:  # a cancelled request frees its slot too
                await passed.ended_async(error=error)
                raise
            await passed.answered_async(response)
            enforcement.add_headers(response, answer)
            return response

        if iscoroutinefunction(view):
            return held_async

        @wraps(view)
        def held(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if (
                _on_event_loop()
            ):  # `dispatch` of a class with async handlers is a plain function that returns a coroutine
                return held_async(request, *args, **kwargs)
            answer = enforcement.enforce(_asked(request, given, args, kwargs))
            if isinstance(answer, enforcement.Refused):
                return answer.response
            passed = enforcement.Passed(answer)
            try:
                response = view(request, *args, **kwargs)
            except BaseException as error:
                passed.ended(error=error)
                raise
            passed.answered(response)
            enforcement.add_headers(response, answer)
            return response

        return held

    return decorate


def _on_event_loop() -> bool:
    """Whether this thread runs a loop; Django calls plain views in threads that don't."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _asked(request: HttpRequest, given: Mapping[str, Given], args: Any, kwargs: Any) -> Check:
    named = {
        name: value(request, *args, **kwargs) if callable(value) else value
        for name, value in given.items()
        if value is not None
    }
    if isinstance(named.get("cost"), int):
        named["cost"] = {"requests": named["cost"]}
    return enforcement.check_of(request, **named)
