"""Telegram's Bot API: everything is in the body. A refused chat says nothing about the bot.

https://core.telegram.org/bots/api#responseparameters
"""

from __future__ import annotations

import re

from quotas.engine.dialects import numbers, wait_values
from quotas.engine.dialects.findings import Reading, by_status
from quotas.engine.dialects.response import Answer

_RETRY_AFTER = re.compile(r"(?:[Rr]etry after |FLOOD_WAIT_)([0-9]{1,9})\b")


def read(answer: Answer) -> Reading:
    """429: the chat (the pool's key) waits `parameters.retry_after`; 401 and 404: a bad token; 403: that recipient has
    blocked the bot, is gone, or has removed it, which is nothing of the bot's."""
    reading = by_status(answer)
    code = numbers.whole(answer.at("error_code"))
    if reading.category == "ok" and answer.at("ok") is False and code:
        reading = by_status(Answer(code, {}, answer.json, answer.now))
    status = code or answer.status
    if reading.category == "rate_limited":
        reading.scope = "key"
        stated = wait_values.hint(numbers.signed(answer.at("parameters", "retry_after")))
        if stated is None and (match := _RETRY_AFTER.search(answer.text_at("description"))):
            stated = wait_values.hint(float(match[1]))
        reading.hint = stated if stated is not None else reading.hint
    elif status == 401 or (status == 404 and answer.text_at("description") == "Not Found"):
        reading.refuse_credential()
    elif status == 403 and answer.at("ok") is False:
        reading.reject_request()
    return reading
