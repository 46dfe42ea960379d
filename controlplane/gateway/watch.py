"""Ends a call whose caller is gone, does not send its body, or takes nothing of its answer for longer than the call may last.

    begin -> 50 ms -> the body has not come  -> ended after `LATE`
                   -> the body has come      -> ended when its caller is gone, or after the provider's timeout

Most calls have ended before that, and take a single timer. The call is ended by cancelling its task, so that it is settled by
what was seen, and what it waited for is given up.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from controlplane.gateway.attempt import Broken
from controlplane.gateway.body import Body
from controlplane.gateway.progress import Progress
from controlplane.http.request import Disconnected
from quotas.rest.problems import ProblemError

WATCH_AFTER = 0.05
"""Seconds after which a call is watched: a watch for its caller's going away costs the server and the event loop as much as a
tenth of a call."""
LATE = 60.0
"""Seconds in which a caller must have sent what is read of its body before it is admitted."""
GRACE = 2.0
"""Seconds after the provider's timeout. The HTTP client counts that only while it reads, and it does not read while a caller
takes nothing."""
LOOK_EVERY = 30.0
"""Seconds between two looks at a call that is not being sent, since it waits for its admission."""


class Watch:
    """A block within which a call runs. Raises `Disconnected`, `Broken`, or a problem for a body that does not come."""

    __slots__ = ("_began", "_body", "_gone", "_is_over", "_loop", "_progress", "_task", "_timer", "_why", "is_reading")

    def __init__(self, body: Body, progress: Progress, *, is_reading: bool = False) -> None:
        self._body, self._progress = body, progress
        self._gone: asyncio.Future[None] | None = None
        self._is_over = False
        self._why: Exception | None = None
        self.is_reading = is_reading
        """Whether the body is being read by the call itself."""

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._loop = task, asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer = self._loop.call_later(WATCH_AFTER, self._look)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._is_over = True
        self._timer.cancel()
        if self._gone is not None:
            self._gone.cancel()
        if self._why is not None and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise self._why from None

    def _look(self) -> None:
        if self.is_reading:
            left = LATE - (self._loop.time() - self._began)
            if left <= 0:
                self._end(_late())
                return
        else:
            if self._gone is None:
                self._gone = asyncio.ensure_future(self._body.gone())
                self._gone.add_done_callback(self._left)
            left = self._progress.ends_by + GRACE - time.perf_counter()
            if left <= 0:
                self._end(Broken())
                return
        # A body may have come long before that, and its caller is watched for from then on.
        self._timer = self._loop.call_later(min(left, WATCH_AFTER if self.is_reading else LOOK_EVERY), self._look)

    def _left(self, _: asyncio.Future[None]) -> None:
        self._end(Disconnected())

    def _end(self, why: Exception) -> None:
        if not self._is_over and self._why is None:
            self._why = why
            self._task.cancel()


def _late() -> ProblemError:
    return ProblemError("request-timeout", "Request timeout", 408, f"The body did not come within {LATE:g} s.")
