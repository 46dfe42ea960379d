"""Groq: OpenAI's fields, but requests are counted by the day and tokens by the minute.

https://console.groq.com/docs/rate-limits
"""

from __future__ import annotations

from dataclasses import replace

from quotas.engine.dialects import openai
from quotas.engine.dialects.findings import Reading
from quotas.engine.dialects.response import Answer

_WINDOWS = {"requests": 86400.0, "tokens": 60.0}


def read(answer: Answer) -> Reading:
    """As OpenAI's, with Groq's own windows."""
    reading = openai.read(answer)
    if answer.status == 498:  # the flex tier has no capacity left
        reading.category = "server"
    for unit, window in _WINDOWS.items():
        if unit in reading.learned:
            reading.learned[unit] = replace(reading.learned[unit], window=window)
    return reading
