"""What follows from each category, and that it depends on the category alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quotas.engine.categories import LIMITS, OF_ATTEMPTS, OF_CALLS, OF_DEAD_JOBS, TRANSIENT, Category
from quotas.engine.types import CallOutcome
from quotas.upstream import backoff

ROOT = Path(__file__).resolve().parents[4]


def test_the_lists_are_those_of_the_contract() -> None:
    assert OF_ATTEMPTS == (
        "rate_limited", "quota_exhausted", "auth", "server", "network", "timeout", "validation", "code", "poison",
    )  # fmt: skip
    assert (*OF_ATTEMPTS, "lost") == OF_DEAD_JOBS
    assert (*OF_ATTEMPTS, "unknown") == OF_CALLS
    assert LIMITS == ("rate_limited", "quota_exhausted")
    assert TRANSIENT == ("rate_limited", "quota_exhausted", "server", "network", "timeout")


@pytest.mark.parametrize("category", Category)
def test_a_cause_either_passes_or_stays(category: Category) -> None:
    assert not (category.is_transient and category.is_permanent)
    assert (category.backoff is not None) == category.is_transient
    assert not (category.is_limit and category.is_outage)


def test_the_severity_says_who_can_help() -> None:
    severities = {category.value: category.severity for category in Category}
    assert {name for name, severity in severities.items() if severity == "critical"} == {"auth", "code", "poison"}
    assert {name for name, severity in severities.items() if severity == "info"} == {"rate_limited"}


def test_a_name_that_is_none_is_unknown() -> None:
    assert Category.of("server") is Category.SERVER
    assert Category.of("") is Category.of("no such") is Category.UNKNOWN


@pytest.mark.parametrize("category", Category)
def test_a_call_waits_by_its_category(category: Category) -> None:
    middle = lambda low, high: (low + high) / 2  # noqa: E731
    waits = [backoff.delay(CallOutcome(category), failures, middle) for failures in (1, 60)]
    assert waits == (list(category.backoff) if category.backoff else [None, None])
    assert backoff.delay(CallOutcome(category, retry_after=7.0), 1, lambda low, high: low) == (
        7.0 if category.backoff else None
    )


def test_no_other_module_lists_categories() -> None:
    """Two or more names of categories side by side in a tuple, list or set are a list of their own."""
    names = "|".join(re.escape(category.value) for category in Category if category not in ("ok", "code", "unused"))
    listed = re.compile(rf"""[({{\[][^(){{}}\[\]]*["']({names})["'],\s*["']({names})["'](?!:)""")
    found = [
        f"{path.relative_to(ROOT)}: {match.group(0)[:80]}"
        for app in ("quotas", "queues", "controlplane")
        for path in sorted((ROOT / app).rglob("*.py"))
        if "migrations" not in path.parts and path.name != "categories.py"
        for match in listed.finditer(path.read_text())
    ]
    assert found == []
