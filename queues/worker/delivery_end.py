"""Writing the ends of deliveries until they are written: the engine first, since others wait for the capacity; then SQL.

Both lanes end their deliveries here. SQL away is waited for. What can't be written for a reason of its own is written as
a failure of the job's code, and stops neither its worker nor the deliveries that ended with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog
from django.db import InterfaceError, OperationalError, close_old_connections

from queues.deliveries import Ended
from queues.lifecycle.delivery import finish as settle
from queues.registry import RunResult
from queues.settlement import settle_engine
from queues.states import AttemptOutcome
from queues.task_errors import described
from quotas.engine.types import CallOutcome

log = structlog.get_logger(__name__)


def end(ended: Sequence[Ended], worker: str) -> None:
    """Settle `ended`, which ran in `worker`. Returns when that is done, and raises nothing that one of them causes."""
    _settle_engine(ended)
    _write(ended, worker)


def _settle_engine(ended: Sequence[Ended]) -> None:
    try:
        settle_engine(ended)
    except Exception:
        if len(ended) > 1:
            for item in ended:
                _settle_engine([item])
            return
        log.exception("worker.engine_unsettled", job=ended[0].claimed.job.uid)
        _settle_as_unknown(ended[0])


def _settle_as_unknown(item: Ended) -> None:
    """The estimate stands, and what the delivery holds is given back."""
    plain = replace(item.result, upstream=CallOutcome("unknown"), actual={})
    try:
        settle_engine([Ended(item.claimed, plain)])
    except Exception:  # its lease runs out by itself
        log.exception("worker.engine_unsettled", job=item.claimed.job.uid)


def _write(ended: Sequence[Ended], worker: str) -> None:
    wait = 0.1
    while True:
        try:
            close_old_connections()
            settle(ended, worker)
            return
        except (OperationalError, InterfaceError) as error:
            log.warning("worker.sql_away", error=type(error).__name__, deliveries=len(ended))
            time.sleep(wait)
            wait = min(wait * 2, 2.0)
        except Exception as error:
            if len(ended) > 1:
                for item in ended:
                    _write([item], worker)
                return
            job = ended[0].claimed.job
            log.exception("worker.unsettled", job=job.uid)
            if ended[0].result.category == "code" and ended[0].result.final:
                return  # its claim ends, and the reconciler finds it
            ended = [Ended(ended[0].claimed, _unwritable(error))]


def _unwritable(error: Exception) -> RunResult:
    text = f"How it ended can't be stored: {described(error)}"[:2000]
    return RunResult(AttemptOutcome.FAILED, category="code", error=text, final=True)
