"""JSON for pages, shortened where it is large."""

from __future__ import annotations

import json
from typing import Any

from django.utils.html import format_html

LONGEST = 100_000
"""Characters that a page shows: a browser freezes on megabytes."""


def pretty(value: Any) -> str:
    """JSON for a page; a dash for what is not there."""
    if value in (None, {}, []):
        return "–"
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    if len(text) <= LONGEST:
        return format_html('<pre class="sl-json">{}</pre>', text)
    return format_html(
        '<pre class="sl-json" data-shortened>{}</pre><p class="sl-dim">The first {} of {} characters. The API has all.</p>',
        text[:LONGEST], f"{LONGEST:,}", f"{len(text):,}",
    )  # fmt: skip
