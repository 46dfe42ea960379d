"""Refusals that a status does not distinguish: an account without money, a suspended one, a request that never fits.

Providers say these things with the caller's own statuses, or inside a 200. They are recognised by machine-readable
codes, and by words only where the error's text begins with them or with its figures: a text may quote what the
caller has sent, and no request may speak for its account.
"""

from __future__ import annotations

import re
from typing import Any

from quotas.engine.categories import LIMITS
from quotas.engine.dialects import numbers
from quotas.engine.dialects.findings import Reading, reason_of
from quotas.engine.dialects.response import Answer, dig

SPENT = frozenset(
    {
        "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance",
        "insufficient_user_quota", "insufficient_credits", "insufficient_funds", "credit_balance_too_low",
        "payment_required", "billing_error", "exceeded_current_quota_error", "pre_consume_token_quota_failed",
        "spend_limit_reached", "blocked_api_access", "credit_limit", "Arrearage", "AllocationQuota.FreeTierOnly",
        "AccountOverdueError", "BILLING_DISABLED", "billingNotEnabled", "1113", "ASR_PAYMENT_REQUIRED",
        "INSUFFICIENT_CREDITS", "enforced_spend_limit_reached", "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached", "linked_organization_billing_unavailable",
    }
)  # fmt: skip
"""No money, or a quota of a longer period: the account can't be used until somebody pays or the period ends."""
SPENT_UNLESS_429 = frozenset({"quota_exceeded", "QuotaExceeded", "quotaExceeded"})
"""With 429 these may be a rate limit's."""
DAILY = frozenset(
    {"dailyLimitExceeded", "dailyLimitExceededUnreg", "ServiceQuotaExceededException", "REQUEST_LIMIT_EXCEEDED"}
)
_DAILY_WORDS = re.compile(
    r"Too many tokens per day|(?:You have reached your|Account exceeded the) daily .{0,40}limit"
    r"|You are using a Trial key, which is limited to [0-9,]{1,12} API calls / month",
    re.IGNORECASE,
)
"""A quota of a day or a month, which comes back by itself."""
OVERLOADED = frozenset({"engine_overloaded", "engine_overloaded_error", "overloaded_error", "capacity_exceeded"})
"""The provider is short of capacity, though it answers 429: it says nothing about the account."""
REJECTED = frozenset({"card_error", "card_declined", "content_policy_violation", "moderation_blocked"})
"""The request is refused, with the status of a payment or a permission."""
SUSPENDED = frozenset(
    {
        "account_deactivated", "organization_deactivated", "organization_restricted", "account_suspended",
        "access_terminated", "CONSUMER_SUSPENDED", "CONSUMER_INVALID", "ACCOUNT_STATE_INVALID", "API_KEY_INVALID",
        "API_KEY_EXPIRED", "API_KEY_LEAKED", "keyInvalid", "keyExpired", "invalid_api_key", "InvalidApiKey",
        "organization_on_hold", "ReadOnlyDisabledSubscription", "SubscriptionDisabled", "UnrecognizedClientException", "InvalidClientTokenId",
        "ExpiredTokenException", "ExpiredToken", "InvalidAccessKeyId",
    }
)  # fmt: skip
"""The credential, or the account behind it, is refused for every request."""
LIMITED_CODES = frozenset(
    {
        "rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMITED", "RATELIMITED", "THROTTLED", "TOO_MANY_REQUESTS",
        "RESOURCE_EXHAUSTED", "rate_limit_exceeded", "rate_limit_error", "Throttling", "ThrottlingException",
        "ThrottledException", "RequestThrottledException", "TooManyRequestsException", "RequestThrottled", "SlowDown",
        "ProvisionedThroughputExceededException", "RequestLimitExceeded", "BandwidthLimitExceeded",
        "PriorRequestNotComplete", "EC2ThrottledException", "Throttling.RateQuota", "Throttling.BurstRate",
    }
)  # fmt: skip
_SPENT_WORDS = re.compile(
    r"Your credit balance is too low|You have reached your specified API usage limits|Insufficient (?:Balance|credits)"
    r"|Sorry, your account balance is insufficient"
    r"|Your (?:newly created )?team \S{0,80} ?(?:has either used all|doesn't have any) (?:available )?credits"
    r"|Your (?:newly created )?teams? doesn't have any credits|Your prepayment credits are depleted"
    r"|Out of call volume quota|Key limit exceeded|Your account is not active, please check your billing details"
    r"|You (?:have )?exceeded your (?:monthly|daily) quota|(?:user|token) quota is not enough"
    r"|预扣费额度失败|用户额度不足|订阅额度不足"
    r"|Billing hard limit has been reached|This request requires more credits",
    re.IGNORECASE,
)
_SUSPENDED_WORDS = re.compile(
    r"This organization has been disabled|Your API key was reported as leaked|Sorry\. Your account was suspended"
    r"|Organization has been restricted|Your account has been (?:disabled|suspended|deactivated)"
    r"|Permission denied: Consumer .{1,120} has been suspended|Your access was terminated"
    r"|Error validating access token",
    re.IGNORECASE,
)
_LIMITED_WORDS = re.compile(r"\(#(?:4|17|32|613|800[0-9]{2})\) ")
"""Meta's Graph API has its codes in the text, with 400 and 403."""
_NUMBER = r"([0-9][0-9,_]{0,18})(?!\.?[0-9])"
_LIMIT = re.compile(rf"\blimit:? {_NUMBER}", re.IGNORECASE)
_REQUESTED = re.compile(rf"\brequested:? {_NUMBER}", re.IGNORECASE)
_TOO_LARGE = re.compile(r"Request too large|Extra usage is required for long context requests", re.IGNORECASE)
_TOO_COSTLY = frozenset(
    {"MAX_COST_EXCEEDED", "MAX_NODE_LIMIT_EXCEEDED", "request_too_large", "context_length_exceeded"}
)


def apply(answer: Answer, reading: Reading, status: int) -> None:
    """Let the error's code or text outrank the category that `status` gave."""
    if status < 400 or reading.certain:
        return
    known = codes(answer)
    words = reason_of(reading.message)
    limited = known & LIMITED_CODES or _LIMITED_WORDS.match(words)
    if status != 429 and 400 <= status < 500 and reading.category not in LIMITS and limited:
        reading.category, reading.scope = "rate_limited", "account"
    if never_fits(known, reading) or (status in (402, 403) and is_rejected(answer, known)):
        reading.reject_request()
        return
    if status == 429 and known & OVERLOADED:
        reading.category, reading.scope = "server", "account"
    if known & SUSPENDED or _SUSPENDED_WORDS.match(words):
        reading.refuse_credential()
    elif reading.category != "server" and (
        known & SPENT or (status != 429 and known & SPENT_UNLESS_429) or _SPENT_WORDS.match(words)
    ):
        if reading.scope == "model" and reading.category == "quota_exhausted":
            return  # the dialect knows better which part of the account it is
        reading.spend_account()
    elif known & DAILY or (reading.category in LIMITS and _DAILY_WORDS.match(words)):
        reading.category, reading.scope = "quota_exhausted", "account"


def never_fits(known: set[str], reading: Reading) -> bool:
    """Whether the refused request is greater than the whole limit, so that no wait would help.

    The figures decide where there are some: "Limit 10000, Requested 12000" never fits, "Limit 250000, Used 249800,
    Requested 546" only not now.
    """
    if reading.category not in LIMITS:
        return False
    if known & _TOO_COSTLY:
        return True
    words = reason_of(reading.message)
    limit, requested = _figure(_LIMIT, words), _figure(_REQUESTED, words)
    if limit and requested is not None:
        return requested > limit
    return _TOO_LARGE.match(words) is not None


def is_rejected(answer: Answer, known: set[str]) -> bool:
    """Whether a refusal with a payment's or a permission's status is about the request."""
    return bool(known & REJECTED) or answer.at("error", "metadata", "flagged_input") is not None


def codes(answer: Answer) -> set[str]:
    """The machine-readable codes of an error, from all members in which APIs have them."""
    found: set[str] = set()
    for part in answer.parts[:20]:
        error = dig(part, "error")
        errors = dig(part, "errors")
        for source in (part, error, dig(part, "detail"), dig(error, "innererror"), *_first(errors)):
            for name in ("code", "type", "status", "reason", "__type", "errorCode"):
                _add(found, dig(source, name))
        _add(found, error)
        for item in (*_first(errors), *_first(dig(error, "errors"))):
            for place in (("reason",), ("extensions", "code"), ("type",), ("code",)):
                _add(found, dig(item, *place))
        for detail in _first(dig(error, "details")):
            _add(found, dig(detail, "reason"))
        _add(found, dig(error, "details", "error_code"))
    _add(found, (answer.get("x-amzn-errortype") or "").partition(":")[0])
    return found


def _first(items: object) -> list[Any]:
    return items[:20] if isinstance(items, list) else []


def _add(found: set[str], code: object) -> None:
    if isinstance(code, int) and not isinstance(code, bool):
        code = str(code) if abs(code) < 10**9 else None
    if isinstance(code, str) and 0 < len(code) <= 80:
        found.add(code.rpartition("#")[2])


def _figure(pattern: re.Pattern[str], words: str) -> int | None:
    match = pattern.search(words)
    return None if match is None else numbers.whole(re.sub("[,_]", "", match[1]))
