"""What the web server's own log says: all but the ends of streams that a provider has broken off.

A connection is only ended in error by an exception of the application, which the server would log as a fault of ours,
with a traceback. The gateway has already recorded such a call: it is among the recent calls and the events.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from granian.log import LOGGING_CONFIG

BROKEN = "Broken"
"""The name of `controlplane.gateway.attempt.Broken`, which the log ends with."""


class NoBrokenStreams(logging.Filter):
    """Drops the tracebacks of streams that were broken off on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.startswith("Application callable raised an exception"):
            return True
        return not message.rstrip().rpartition("\n")[2].startswith(BROKEN)


def configuration() -> dict[str, Any]:
    """For `Granian(log_dictconfig=..)`."""
    found: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    found["filters"] = {"streams": {"()": "controlplane.http.server_log.NoBrokenStreams"}}
    found["handlers"]["console"]["filters"] = ["streams"]
    return found
