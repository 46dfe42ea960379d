"""The result of a task, checked: JSON of a bounded size."""

from __future__ import annotations

import json
from typing import Any

from queues.errors import JobError

MAX_RESULT = 256 * 1024
"""Bytes of JSON that a result may have."""


def plain(value: Any) -> Any:
    """The result as JSON; anything else is said to be the task's mistake."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JobError(f"The task's result is no JSON: {error}", category="code") from None
    if len(text) > MAX_RESULT:
        raise JobError(f"The task's result has more than {MAX_RESULT:,} bytes.", category="code")
    return json.loads(text)
