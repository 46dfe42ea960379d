from __future__ import annotations

from pathlib import Path

import pytest

from queues.dispatcher.denials import cause_of
from queues.reason_codes import REASONS
from quotas.engine.types import Admission

PAGE = Path(__file__).resolve().parents[4] / "docs" / "waits.md"


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        ({"cooldown": 2, "breaker_open": 1}, "account_cooldown"),
        ({"cooldown": 1, "breaker_open": 3}, "account_breaker"),
        ({"concurrency": 4}, "account_concurrency"),
        ({"paused": 1}, "priority_hold"),
        ({"requests": 2}, "account_limit"),
        ({"tokens": 12, "cooldown": 2}, "account_limit"),
    ],
)
def test_the_most_frequent_cause_of_a_pool_decides(reasons: dict[str, int], code: str) -> None:
    admission = Admission(False, bound_by="pool", binding="llm", reasons=reasons)
    assert cause_of(admission, pool_paused=False) == (code, "llm")


def test_policies_disabled_and_paused_pools() -> None:
    limited = Admission(False, bound_by="limit", binding="user-hourly")
    assert cause_of(limited, pool_paused=False) == ("policy_limit", "user-hourly")
    disabled = Admission(False, bound_by="pool", binding="llm", disabled=True)
    assert cause_of(disabled, pool_paused=False) == ("accounts_disabled", "llm")
    assert cause_of(disabled, pool_paused=True) == ("pool_paused", "llm")


def test_every_code_has_a_meaning_and_a_remedy_which_the_page_has_too() -> None:
    page = PAGE.read_text()
    assert all(reason.label and reason.means and reason.remedy for reason in REASONS.values())
    rows = [f"| `{code}` | {reason.means} | {reason.remedy} |" for code, reason in REASONS.items()]
    assert [row for row in rows if row not in page] == []
