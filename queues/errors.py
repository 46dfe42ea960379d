"""Errors of queues and jobs. The docstring of an error is its message; data is on the exception."""

from __future__ import annotations

import math
from collections.abc import Sequence

from quotas.engine.categories import OF_ATTEMPTS
from quotas.rest.pointers import FieldError as FieldError

CATEGORIES = OF_ATTEMPTS
"""How an attempt can have failed, as a task or a provider says it."""
LONGEST_HINT = 366 * 86400.0
"""Seconds: a longer delay that a task requests is as good as never."""


class QueueError(Exception):
    """Something about a queue or a job is not as it must be."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail or " ".join((type(self).__doc__ or "").split()))


class QueueFull(QueueError):
    """The queue has as many waiting jobs as it may."""

    def __init__(self, queue: str, retry_after: float) -> None:
        super().__init__(f"The queue {queue} has as many waiting jobs as it may.")
        self.queue = queue
        self.retry_after = retry_after


class QueueTooSmall(QueueError):
    """More jobs than the queue has room for, even if it is empty."""


class QueueDraining(QueueError):
    """The queue is draining and accepts nothing new."""


class IdempotencyKeyReused(QueueError):
    """This idempotency key was used with another body."""


class BatchClosed(QueueError):
    """The batch is sealed and takes no more jobs."""


class AlreadyFinished(QueueError):
    """The job has ended, so there is nothing to cancel."""


class AlreadyHandled(QueueError):
    """The dead letter was handled already."""


class NotRetryable(QueueError):
    """Only a dead job can be retried."""


class InvalidJob(QueueError):
    """The job is not valid."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors[:5]))
        self.errors = tuple(errors)


class UnknownJobType(InvalidJob):
    """No job type of this name is registered."""


class NoSuchPool(InvalidJob):
    """The job names a pool that does not exist, or that is for other projects."""

    def __init__(self, errors: Sequence[FieldError], *, of_others: bool) -> None:
        super().__init__(errors)
        self.of_others = of_others
        """The pool exists and is for other projects. For answers' status only: no text may say so."""


class JobError(QueueError):
    """Raised by a task to say how it failed.

    `category` is one of `CATEGORIES`, anything else counts as `code`; `retry_after` in seconds comes before the retry
    policy's own wait, and is passed over where it is no time to wait.
    """

    def __init__(self, detail: str, *, category: str = "code", retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.category = category if category in CATEGORIES else "code"
        self.retry_after = hint_of(retry_after)


def hint_of(value: object) -> float | None:
    """Seconds to wait that arithmetic can be done with; None for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(min(value, LONGEST_HINT))


class JobCancelled(BaseException):
    """Raised inside a running task whose job was cancelled. No `except Exception` of the task catches it."""


class JobTimedOut(BaseException):
    """Raised inside a running task at its deadline. No `except Exception` of the task catches it."""
