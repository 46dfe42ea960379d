"""The limits of earlier questions, kept with one snapshot of the configuration: most callers come again."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from quotas.engine.limits.packed import LimitSet
from quotas.engine.types import Limit
from quotas.snapshot.policies import CompiledPolicy

Question = tuple[Any, ...]
"""All that the limits depend on beside the configuration and the time."""
MOST = 2048
"""Questions that are kept: with what is packed of it, the answer to one takes one or two KiB."""


class ResolvedLimits:
    """Nothing but the end of an override changes the limits of a snapshot: then all are resolved again."""

    __slots__ = ("_ends", "_known", "_once", "_policies")

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        self._policies = [policy for policy in policies if policy.overrides]
        self._known: dict[Question, LimitSet] = {}
        self._once: set[int] = set()
        """Hashes of questions that have come once, or more often."""
        self._ends = self._next_end(-inf)
        """When the next override ends, by SQL's clock."""

    def find(self, question: Question, now: float) -> LimitSet | None:
        """The limits of the same question before, if they are still the same at `now`."""
        if now >= self._ends:
            self._ends = self._next_end(now)
            self._known = {}
        return self._known.get(question)

    def keep(self, question: Question, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        """The limits, kept if the question has come before: many never come again, such as those about an id in a path."""
        mark = hash(question)
        if mark not in self._once:
            if len(self._once) >= 4 * MOST:
                self._once = set()
            self._once.add(mark)
            return limits
        if len(self._known) >= MOST:
            self._known = {}
        kept = self._known[question] = LimitSet(limits)
        return kept

    def _next_end(self, after: float) -> float:
        ends = [one.until for policy in self._policies for one in policy.overrides.values() if one.until is not None]
        return min([end for end in ends if end > after], default=inf)
