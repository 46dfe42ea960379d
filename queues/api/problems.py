"""Our errors as problem documents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from queues import errors
from quotas.rest.problems import InvalidRequest, ProblemError


@contextmanager
def as_problems() -> Iterator[None]:
    """Turn what a service raises into the answer that the contract names."""
    try:
        yield
    except errors.InvalidJob as error:
        found = [{"pointer": f"#{item.pointer}", "detail": item.detail} for item in error.errors[:50]]
        raise InvalidRequest(f"{found[0]['pointer']}: {found[0]['detail']}", found) from None
    except errors.QueueFull as error:
        raise ProblemError(
            "queue-full", "Queue full", 429, str(error),
            headers={"Retry-After": str(max(math.ceil(error.retry_after), 1))}, retry_after=error.retry_after, queue=error.queue,
        ) from None  # fmt: skip
    except errors.QueueTooSmall as error:
        raise ProblemError("queue-too-small", "Queue too small", 422, str(error)) from None
    except errors.QueueDraining as error:
        raise ProblemError("queue-draining", "Queue draining", 503, str(error), headers={"Retry-After": "30"}) from None
    except errors.IdempotencyConflict as error:
        raise ProblemError("idempotency-conflict", "Idempotency conflict", 409, str(error)) from None
    except errors.BatchClosed as error:
        raise ProblemError("batch-closed", "Batch closed", 409, str(error)) from None
    except (errors.AlreadyFinished, errors.AlreadyHandled, errors.NotRetryable) as error:
        raise ProblemError("conflict", "Conflict", 409, str(error)) from None
