"""Azure OpenAI: as OpenAI, but resets are plain seconds, and -1 means not known.

https://learn.microsoft.com/azure/ai-services/openai/how-to/quota
"""

from __future__ import annotations

from quotas.engine.dialects import numbers
from quotas.engine.dialects.findings import Reading, by_status, reset_of, trio
from quotas.engine.dialects.openai import use_of, wait_in_ms
from quotas.engine.dialects.response import Answer


def read(answer: Answer) -> Reading:
    """Quota per minute of the deployment; `renewalperiod` where it is stated."""
    reading = by_status(answer)
    reading.resource = ""
    for unit in ("requests", "tokens"):
        quota = trio(answer, "x-ratelimit-", suffix=f"-{unit}")
        reset = reset_of(answer, f"x-ratelimit-reset-{unit}", "delta")
        if reset is None:  # some deployments spell it so, and send neither a limit nor `retry-after` with it
            reset = reset_of(answer, f"x-rate-limit-reset-{unit}", "delta")
            if reset and reading.category == "rate_limited" and reading.hint is None:
                reading.hint = reset
        window = numbers.decimal(answer.get(f"x-ratelimit-renewalperiod-{unit}")) or 60.0
        reading.learn(unit, **quota, reset_after=reset, window=min(window, 86400.0), kind="bucket")
    wait_in_ms(answer, reading)
    if answer.status == 401 and "invalid subscription key" in reading.message:
        reading.refuse_credential()
    use_of(answer, reading)
    return reading
