"""What people may do, beside Django's own permissions to view, add, change and delete rows."""

from __future__ import annotations

from typing import Any

ACT_ON_JOBS = "quotas.act_on_jobs"
ACT_ON_QUEUES = "quotas.act_on_queues"
ACT_ON_LIMITS = "quotas.act_on_limits"
ACT_ON_ACCOUNTS = "quotas.act_on_accounts"
SEE_PAYLOADS = "quotas.see_payloads"

ACTS = (ACT_ON_JOBS, ACT_ON_QUEUES, ACT_ON_LIMITS, ACT_ON_ACCOUNTS)

DECLARED = (
    ("act_on_jobs", "Can act on jobs: cancel, retry, replay, discard"),
    ("act_on_queues", "Can act on queues: pause, resume, drain"),
    ("act_on_limits", "Can act on limits: reset counters"),
    ("act_on_accounts", "Can act on accounts and pools: clear cooldowns, trip, disable, pause"),
    ("see_payloads", "Can see payloads and results of jobs"),
)
"""Codenames and descriptions, as `Meta.permissions` of a model wants them."""


def may_see_payloads(user: Any) -> bool:
    return bool(user.has_perm(SEE_PAYLOADS))


def may_act(user: Any) -> bool:
    """Whether the person may act on anything at all."""
    return any(user.has_perm(permission) for permission in ACTS)
