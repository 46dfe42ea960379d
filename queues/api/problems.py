"""Errors of queues as problem documents (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from queues import errors
from quotas.rest.caller import Caller
from quotas.rest.pointers import MAX_ERRORS
from quotas.rest.problems import InvalidRequest, NotFound, ProblemError


@contextmanager
def as_problems(caller: Caller | None = None) -> Iterator[None]:
    """Turn what a service raises into the answer that the contract names.

    A pool that is for other projects is 404, as one that does not exist is for a `caller` bound to a project: the two
    must look the same there.
    """
    try:
        yield
    except errors.NoSuchPool as error:
        found = error.errors[:MAX_ERRORS]
        if error.of_others or (caller is not None and not caller.is_platform):
            raise NotFound(str(found[0]), "unknown-pool", found) from None
        raise InvalidRequest(str(found[0]), found) from None
    except errors.InvalidJob as error:
        found = error.errors[:MAX_ERRORS]
        raise InvalidRequest(str(found[0]), found) from None
    except errors.QueueFull as error:
        raise ProblemError(
            "queue-full", "Queue full", 429, str(error),
            headers={"Retry-After": str(max(math.ceil(error.retry_after), 1))}, retry_after=error.retry_after, queue=error.queue,
        ) from None  # fmt: skip
    except errors.QueueTooSmall as error:
        raise ProblemError("queue-too-small", "Queue too small", 422, str(error)) from None
    except errors.QueueDraining as error:
        raise ProblemError("queue-draining", "Queue draining", 503, str(error), headers={"Retry-After": "30"}) from None
    except errors.IdempotencyKeyReused as error:
        raise ProblemError("idempotency-conflict", "Idempotency conflict", 409, str(error)) from None
    except errors.BatchClosed as error:
        raise ProblemError("batch-closed", "Batch closed", 409, str(error)) from None
    except (errors.AlreadyFinished, errors.AlreadyHandled, errors.NotRetryable) as error:
        raise ProblemError("conflict", "Conflict", 409, str(error)) from None
