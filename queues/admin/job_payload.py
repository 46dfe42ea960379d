"""A job's payload on its page: indented, with the changes of edited replays, and as a command that submits it again."""

from __future__ import annotations

import difflib
import json
import shlex
from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from queues import redaction, registry
from queues.admin.pretty_json import pretty
from queues.models import Job
from queues.presenters.jobs import payload_of
from quotas.moments import spell_moment

LONGEST = 20_000
"""Characters of a payload up to which differences and the command are shown."""
EDITIONS = 20


def shown(job: Job, address: str) -> str:
    """`address` is the server's, as the person's browser uses it."""
    parts = [pretty(redaction.hide(payload_of(job)))]
    parts += _editions(job)
    if (command := curl(job, address)) is not None:
        note = " Fill in what is hidden." if redaction.hides(command) else ""
        parts.append(
            format_html(
                '<details id="curl"><summary>Submit again with curl</summary><pre class="sl-json">{}</pre>'
                '<p class="sl-dim">It needs an API key of the project with the scope submit in SLUICE_KEY.{}</p></details>',
                command, note,
            )
        )  # fmt: skip
    return mark_safe("".join(parts))


def address_of(request: HttpRequest) -> str:
    return request.build_absolute_uri("/").rstrip("/")


def curl(job: Job, address: str) -> str | None:
    """A shell command that submits the job as it is now, without its secrets; None if the payload is too long."""
    body: dict[str, Any] = {"type": job.type, "queue": job.queue.name, "payload": redaction.hide(payload_of(job))}
    for name, value in (("user", job.user), ("keys", job.keys), ("priority", job.priority)):
        if value not in (None, "", {}):
            body[name] = value
    text = json.dumps(body, ensure_ascii=False, default=str)
    if len(text) > LONGEST:
        return None
    words = [
        "curl", "-X", "POST", f"{address}/api/v1/jobs", "-H", "Authorization: Bearer $SLUICE_KEY", "-H",
        "Content-Type: application/json", "-d", text,
    ]  # fmt: skip
    # The key is a variable of the shell, so this one word has double quotes.
    return " ".join(f'"{word}"' if "$SLUICE_KEY" in word else shlex.quote(word) for word in words)


def _editions(job: Job) -> list[SafeString]:
    """What each edited replay changed, newest first. A dead letter keeps the payload that failed if it was replaced."""
    letters = job.dead_letters.exclude(payload=None).order_by("-pk")[:EDITIONS]
    parts: list[SafeString] = []
    later = _text(job.type, job.payload)
    for letter in letters:
        before = _text(job.type, letter.payload)
        if before == later:
            continue
        if len(before) > LONGEST or len(later) > LONGEST:
            difference: str = "The payloads are too long to be compared here."
        else:
            lines = difflib.unified_diff(before.splitlines(), later.splitlines(), lineterm="", n=2)
            difference = format_html_join("\n", "{}", ((_line(line),) for line in list(lines)[2:]))
        parts.append(
            format_html(
                '<details class="sl-edition" open><summary>Edited after the failure of {}</summary>'
                '<pre class="sl-json sl-diff">{}</pre></details>',
                spell_moment(letter.created_at), difference,
            )
        )  # fmt: skip
        later = before
    return parts


def _line(line: str) -> SafeString:
    if line.startswith("+"):
        return format_html("<ins>{}</ins>", line)
    return format_html("<del>{}</del>", line) if line.startswith("-") else format_html("{}", line)


def _text(job_type: str, payload: Any) -> str:
    hidden = redaction.hide(registry.redacted(job_type, payload))
    return json.dumps(hidden, indent=2, ensure_ascii=False, default=str, sort_keys=True)
