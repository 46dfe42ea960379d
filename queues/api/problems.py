"""Errors of queues as problem documents (RFC 9457), and the view that answers with them."""

from __future__ import annotations

import math

from queues import errors
from quotas.rest.caller import Caller
from quotas.rest.pointers import MAX_ERRORS
from quotas.rest.problems import InvalidRequest, NotFound, ProblemError
from quotas.rest.views import ApiView


class QueuesView(ApiView):
    """A view whose methods may raise what services raise: the answer is the problem that the contract names."""

    def problem(self, error: Exception) -> Exception:
        return problem_of(error, self.caller) if isinstance(error, errors.QueueError) else error


def problem_of(error: errors.QueueError, caller: Caller) -> Exception:
    """The problem for an error of a service; the error itself where it is a fault of ours.

    A pool that is for other projects is 404, as one that does not exist is for a `caller` bound to a project: the two
    must look the same there.
    """
    match error:
        case errors.NoSuchPool() if error.of_others or not caller.is_platform:
            return NotFound(str(error.errors[0]), "unknown-pool", error.errors[:MAX_ERRORS])
        case errors.InvalidJob():
            return InvalidRequest(str(error.errors[0]), error.errors[:MAX_ERRORS])
        case errors.QueueFull():
            again = {"Retry-After": str(max(math.ceil(error.retry_after), 1))}
            return ProblemError(
                "queue-full", "Queue full", 429, str(error), headers=again, retry_after=error.retry_after, queue=error.queue
            )  # fmt: skip
        case errors.QueueTooSmall():
            return ProblemError("queue-too-small", "Queue too small", 422, str(error))
        case errors.QueueDraining():
            return ProblemError("queue-draining", "Queue draining", 503, str(error), headers={"Retry-After": "30"})
        case errors.IdempotencyKeyReused():
            return ProblemError("idempotency-conflict", "Idempotency conflict", 409, str(error))
        case errors.BatchClosed():
            return ProblemError("batch-closed", "Batch closed", 409, str(error))
        case errors.AlreadyFinished() | errors.AlreadyHandled() | errors.NotRetryable():
            return ProblemError("conflict", "Conflict", 409, str(error))
    return error
