from __future__ import annotations

import pytest

from queues.dispatcher.denials import describe
from queues.reason_codes import REASONS, code_of_wait
from quotas.engine.types import Admission


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
    report = describe(Admission(False, bound_by="pool", binding="llm", reasons=reasons))
    assert code_of_wait(report) == code


def test_policies_and_disabled_pools() -> None:
    assert code_of_wait(describe(Admission(False, bound_by="limit", binding="user-hourly"))) == "policy_limit"
    disabled = Admission(False, bound_by="pool", binding="llm", disabled=True)
    assert code_of_wait(describe(disabled)) == "accounts_disabled"


def test_every_code_has_a_meaning_and_a_remedy() -> None:
    assert all(reason.label and reason.means and reason.remedy for reason in REASONS.values())
