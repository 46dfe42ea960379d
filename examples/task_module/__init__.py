"""Tasks of your own. Start every process with `SLUICE_TASK_MODULES=task_module` and the directory above this one on the import path:

    cd examples && SLUICE_TASK_MODULES=task_module sluice up

Submit one over REST (`{"type": "reports.word_count", "project": "demo", "payload": {"text": "a b c"}}`) or from Python:
`word_count.submit(project="demo", text="a b c")`.
"""

from __future__ import annotations

from queues import JobError, task


@task(name="reports.word_count", queue="agent_tasks")
def word_count(job, text: str, minimum: int = 1) -> dict[str, int]:
    """Count the words of a text. The payload's schema comes from this signature, so bad payloads are refused with 400."""
    words = len(text.split())
    if words < minimum:
        # "validation" is not retried by the strategy `smart`; any other exception would be the category "code".
        raise JobError(f"{words} words, at least {minimum} expected", category="validation")
    return {"words": words}
