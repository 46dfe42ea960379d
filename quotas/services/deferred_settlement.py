"""Settlements that Redis did not answer in time: repeated in the background until it does.

The work that a reservation was made for is done by then, and its result must not be lost for our book-keeping. Settling
is idempotent, so a repetition is harmless where the first one got through after all.

    settle -> no answer -> logged, `SettlementDelayed` -> once a second again -> done, or given up when it has expired
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog
from django.db import close_old_connections

from quotas import events
from quotas.engine.limits.requests import RESERVATION_LIFE
from quotas.errors import LimiterUnavailable

RETRY_INTERVAL = 1.0
MAX_KEPT = 10_000
"""Settlements that are kept; beyond that the oldest is given up, and counts as it was reserved."""

log = structlog.get_logger(__name__)
Settle = Callable[[], object]


class Late:
    """Safe under threads and forks; its thread runs while there is something to repeat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, str, Settle]] = deque(maxlen=MAX_KEPT)
        self._pid = os.getpid()
        self._running = False

    def repeat(self, what: str, settle: Settle, why: str, *, life: float = RESERVATION_LIFE) -> None:
        """Repeat `settle` until it returns, for at most `life` seconds. `what`: the reservation or lease, for the log."""
        events.emit(events.SettlementDelayed(what, why))
        with self._lock:
            if self._pid != os.getpid():  # what a parent has to settle is the parent's
                self._pid, self._running = os.getpid(), False
                self._waiting.clear()
            self._waiting.append((time.monotonic() + life, what, settle))
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="late-settlements", daemon=True).start()

    def __len__(self) -> int:
        return len(self._waiting)

    def _run(self) -> None:
        while True:
            time.sleep(RETRY_INTERVAL)
            for _ in range(len(self._waiting)):
                if not self._try_first():
                    break
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return

    def _try_first(self) -> bool:
        """Settle the oldest one; False where Redis is still away."""
        ends, what, settle = self._waiting[0]
        try:
            settle()
        except LimiterUnavailable:
            if time.monotonic() < ends:
                return False
            events.emit(events.SettlementLost(what))
        except Exception:
            log.exception("settlement.failed", what=what)
        finally:
            close_old_connections()
        with self._lock:
            if self._waiting and self._waiting[0][2] is settle:
                self._waiting.popleft()
        return True


late = Late()


def settled(what: str, settle: Callable[[], object], *, life: float = RESERVATION_LIFE) -> object:
    """What `settle` returns; None where it failed: what Redis did not answer is repeated, other errors are logged.

    Never raises: the work that is accounted for is done.
    """
    try:
        return settle()
    except LimiterUnavailable as error:
        late.repeat(what, settle, str(error), life=life)
    except Exception:
        log.exception("settlement.failed", what=what)
    return None
