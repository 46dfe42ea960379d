"""The name that somebody meant who wrote one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """` (did you mean 'retry_after'?)`, or nothing where no known name is close."""
    found = get_close_matches(str(given)[:100], sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]!r}?)" if found else ""
