"""When an answer of a view has ended: with its rendering, or with the last byte of a streamed body.

Django closes every answer at its end, also where its client went away, and calls what was registered to be closed with
it. The end of a streamed body is noticed by itself too, so that nothing depends on how soon a server closes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

from django.http import FileResponse
from django.http.response import HttpResponseBase


class Ending(Protocol):
    """Called at the end; more than once is harmless."""

    def ended(self, response: HttpResponseBase | None = None, error: BaseException | None = None) -> None: ...

    async def ended_async(
        self, response: HttpResponseBase | None = None, error: BaseException | None = None
    ) -> None: ...


def is_open(response: Any) -> bool:
    """Whether the response is still being sent after its view has returned."""
    return bool(getattr(response, "streaming", False)) or not getattr(response, "is_rendered", True)


def follow(response: Any, ending: Ending) -> None:
    """Call `ending` when an open answer has ended."""
    if not getattr(response, "is_rendered", True):
        response.add_post_render_callback(lambda rendered: ending.ended(rendered))
    elif isinstance(response, FileResponse):
        pass  # a server may send the file itself, and closes the answer behind it
    elif response.is_async:
        response.streaming_content = _followed_async(response.streaming_content, response, ending)
    else:
        response.streaming_content = _followed(response.streaming_content, response, ending)
    response._resource_closers.append(lambda: ending.ended(response))


def _followed(body: Iterator[bytes], response: HttpResponseBase, ending: Ending) -> Iterator[bytes]:
    try:
        yield from body
    except Exception as error:
        ending.ended(error=error)
        raise
    ending.ended(response)


async def _followed_async(
    body: AsyncIterator[bytes], response: HttpResponseBase, ending: Ending
) -> AsyncIterator[bytes]:
    try:
        async for part in body:
            yield part
    except Exception as error:
        await ending.ended_async(error=error)
        raise
    await ending.ended_async(response)
