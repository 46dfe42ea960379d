"""Learned quotas: the share that is used, and the JSON that an account's quotas are kept and shown as."""

from __future__ import annotations

import pytest

from quotas.engine.learned import AccountQuota, LearnedQuota


@pytest.mark.parametrize(
    ("limit", "remaining", "share"),
    [(10, 4, 0.6), (10, 0, 1.0), (10, 12, 0.0), (None, 4, None), (10, None, None), (0, 0, None)],
)
def test_the_used_share(limit: int | None, remaining: int | None, share: float | None) -> None:
    assert LearnedQuota(limit, remaining).used_share == share


def test_an_accounts_quota_is_read_and_written_without_what_is_unknown() -> None:
    row = {"limit": 10, "remaining": 3, "kind": "bucket", "models": {"large": {"remaining": 0}}}
    quota = AccountQuota.of(row)
    assert (quota.limit, quota.window, quota.models["large"].remaining) == (10, None, 0)
    assert quota.document() == row
    assert quota.is_of_account


def test_a_quota_of_models_alone_is_not_the_accounts() -> None:
    quota = AccountQuota.of({"models": {"large": {"limit": 5}}})
    assert not quota.is_of_account
    assert quota.document() == {"models": {"large": {"limit": 5}}}
