"""Whose refusal it is: the account's (money, suspension), the request's (too large), the recipient's, or a limit's."""

from __future__ import annotations

import json

import pytest

from quotas.engine.dialects import DIALECTS, read
from tests.unit.quotas.engine.dialects.test_certainty import anthropic, google, openai_error

NOW = 1_695_999_417.0
"""Fri, 29 Sep 2023 14:56:57 GMT."""
LOW = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade."
SPENT = [
    ("anthropic", 400, anthropic("invalid_request_error", LOW)),
    ("anthropic", 402, anthropic("billing_error", "Payment failed.")),
    (
        "anthropic",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "Limit.",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
    ),
    ("openai", 400, openai_error("Billing hard limit has been reached.", "billing_hard_limit_reached")),
    ("openai", 429, openai_error("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")),
    ("openai", 429, openai_error("You exceeded your current quota.", None, "insufficient_quota")),
    ("openai", 429, openai_error("Your account is not active, please check your billing details.", "billing_not_active")),
    ("openai", 402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}}),
    ("openai", 402, {"error": {"message": "Insufficient credits. Add more.", "code": 402}}),
    ("openai", 403, {"error": {"message": "Key limit exceeded (monthly limit).", "code": 403}}),
    ("openai", 401, openai_error("You have insufficient quota.", None, "insufficient_quota")),
    ("openai", 429, {"error": {"code": "1113", "message": "Your account is in arrears."}}),
    ("openai", 403, {"error": {"code": "AccountOverdueError", "message": "The account is overdue."}}),
    ("openai", 400, {"error": {"message": "Access denied, please make sure your account is in good standing.", "code": "Arrearage"}}),
    ("openai", 403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}),
    ("openai", 403, openai_error("预扣费额度失败, 用户剩余额度: 0", "pre_consume_token_quota_failed", "new_api_error")),
    ("openai", 429, {"error": {"message": "Your account is suspended.", "type": "exceeded_current_quota_error"}}),
    ("groq", 429, openai_error("You exceeded your monthly quota.", None)),
    ("azure", 429, openai_error("Quota.", "insufficient_quota")),
    ("azure", 403, {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 12:23:22."}),
    ("mistral", 402, {"message": "Payment required"}),
    ("gemini", 403, google("BILLING_DISABLED", 403)),
    ("gemini", 429, {"error": {"code": 429, "message": "Your prepayment credits are depleted.", "status": "RESOURCE_EXHAUSTED"}}),
    ("generic", 401, {"detail": {"status": "quota_exceeded", "message": "This request exceeds your quota."}}),
    ("generic", 403, {"error": {"message": "This request requires more credits, or fewer max_tokens.", "code": 402}}),
]  # fmt: skip
SUSPENDED = [
    ("anthropic", 400, anthropic("invalid_request_error", "This organization has been disabled.")),
    ("anthropic", 403, anthropic("permission_error", "This organization has been disabled.")),
    ("openai", 401, openai_error("Your account was flagged.", "account_deactivated")),
    ("openai", 403, openai_error("Your access was terminated due to violation of our policies.", "access_terminated")),
    ("groq", 400, openai_error("Organization has been restricted.", "organization_restricted")),
    ("gemini", 403, google("CONSUMER_SUSPENDED", 403)),
    ("gemini", 403, {"error": {"code": 403, "message": "Your API key was reported as leaked.", "status": "PERMISSION_DENIED"}}),
    ("gemini", 403, {"error": {"code": 403, "message": "Permission denied: Consumer 'api_key:AIza' has been suspended."}}),
    ("github", 403, {"message": "Sorry. Your account was suspended."}),
    ("shopify", 423, {"errors": "The shop is locked"}),
    ("azure", 403, {"error": {"code": "ReadOnlyDisabledSubscription", "message": "The subscription is disabled."}}),
    ("generic", 400, {"__type": "com.amazon#UnrecognizedClientException", "message": "The security token is invalid."}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "status", "body"), SPENT)
def test_an_account_without_money_is_out_whatever_the_status(dialect, status, body):
    fast = {
        "x-ratelimit-limit-requests": "9",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "9ms",
    }
    outcome = read(dialect, status, fast, body)
    assert (outcome.category, outcome.scope) == ("quota_exhausted", "account")
    assert outcome.retry_after in (None, 44602.0), "the reset of a rate limit brings no money"


@pytest.mark.parametrize(("dialect", "status", "body"), SUSPENDED)
def test_a_suspended_account_is_refused_for_certain(dialect, status, body):
    outcome = read(dialect, status, {}, body)
    assert (outcome.category, outcome.scope, outcome.certain) == ("auth", "account", True)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("words", [LOW, "This organization has been disabled.", "Your API key was reported as leaked."])
def test_what_a_caller_has_sent_speaks_for_no_account(dialect, words):
    body = {"error": {"message": f"Invalid value for 'prompt': '{words}'", "type": "invalid_request_error"}}
    assert read(dialect, 400, {}, body).category == "validation"
    assert read(dialect, 200, {}, {"choices": [{"message": {"content": words}}]}).category == "ok"


def test_the_day_of_regained_access_is_the_wait():
    words = "You have reached your specified API usage limits. You will regain access on 2023-10-01 at 00:00 UTC."
    outcome = read("anthropic", 400, {}, anthropic("invalid_request_error", words), now=NOW)
    assert (outcome.category, outcome.retry_after) == ("quota_exhausted", 118983.0)
    day = read("anthropic", 400, {}, anthropic("invalid_request_error", words.replace(" at 00:00 UTC", "")), now=NOW)
    assert day.retry_after == 118983.0


TPM = "for gpt-4 in organization org-x on tokens per min (TPM):"


@pytest.mark.parametrize(
    ("dialect", "status", "message", "category"),
    [
        ("openai", 429, f"Request too large {TPM} Limit 10000, Requested 12000. Reduce it.", "validation"),
        ("openai", 429, f"Rate limit reached {TPM} Limit 10,000, Used 0, Requested 12,000. Please try again in 12s.", "validation"),
        ("openai", 429, f"Rate limit reached {TPM} Limit 250000, Used 249800, Requested 546. Please try again in 82ms.", "rate_limited"),
        ("openai", 429, f"Request too large {TPM} Limit 30000, Requested 15000.", "rate_limited"),
        ("openai", 429, f"Rate limit reached {TPM} Limit 10000, Used 9000, Requested 10000.", "rate_limited"),
        ("openai", 429, "Request too large. Visit the limits page.", "validation"),
        ("groq", 429, f"Rate limit reached {TPM} Limit 6000, Used 0, Requested 7000.", "validation"),
        ("groq", 413, "Request too large for model `llama` Limit 6000, Requested 7000", "validation"),
        ("azure", 429, f"Request too large {TPM} Limit: 10000, Requested: 12000.", "validation"),
        ("generic", 429, "Limit 10_000, Requested 12_000", "validation"),
        ("anthropic", 429, "This request would exceed your organization's rate limit of 30,000 input tokens per minute.", "rate_limited"),
    ],
)  # fmt: skip
def test_a_request_greater_than_the_whole_limit_is_no_wait(dialect, status, message, category):
    headers = {"retry-after": "7", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "40s"}
    outcome = read(dialect, status, headers, openai_error(message, "rate_limit_exceeded", "tokens"))
    assert outcome.category == category
    assert outcome.retry_after == (None if category == "validation" else 7.0)
    assert message[:40] in outcome.error


def test_a_graphql_query_that_costs_more_than_the_whole_bucket_is_no_wait():
    def shopify(code, asked):
        throttle = {"maximumAvailable": 1000.0, "currentlyAvailable": 990, "restoreRate": 50.0}
        cost = {"requestedQueryCost": asked, "throttleStatus": throttle}
        return {"errors": [{"message": "x", "extensions": {"code": code}}], "extensions": {"cost": cost}}

    assert read("shopify", 200, {}, shopify("MAX_COST_EXCEEDED", 1021)).category == "validation"
    assert read("shopify", 200, {}, shopify("THROTTLED", 1021)).category == "validation"
    assert read("shopify", 429, {}, shopify("THROTTLED", 1021)).category == "validation"
    waits = read("shopify", 200, {}, shopify("THROTTLED", 1000))
    assert (waits.category, waits.retry_after) == ("rate_limited", 0.2)


def telegram(code, description, **more):
    return {"ok": False, "error_code": code, "description": description, **more}


RECIPIENTS = [
    *(
        ("telegram", 403, telegram(403, f"Forbidden: {words}"))
        for words in (
            "bot was blocked by the user", "user is deactivated", "bot was kicked from the supergroup chat",
            "bot can't initiate conversation with a user", "bot is not a member of the channel chat",
        )
    ),
    ("telegram", 400, telegram(400, "Bad Request: chat not found")),
    ("telegram", 400, telegram(400, "group upgraded", parameters={"migrate_to_chat_id": -1001})),
    ("telegram", 400, telegram(400, "Bad Request: not enough rights to send text messages to the chat")),
    ("telegram", 200, telegram(403, "Forbidden: bot was blocked by the user")),
    *(("slack", 200, {"ok": False, "error": code}) for code in ("channel_not_found", "not_in_channel", "is_archived")),
    *(("slack", 200, {"ok": False, "error": code}) for code in ("user_not_found", "cannot_dm_bot", "msg_too_long")),
    ("slack", 403, "action_prohibited"),
    ("slack", 404, "channel_not_found"),
    ("slack", 410, "channel_is_archived"),
    *(
        ("discord", 403, {"message": "x", "code": code})
        for code in (50001, 50007, 50013, 50278, 160005)
    ),
    ("discord", 404, {"message": "Unknown Channel", "code": 10003}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "status", "body"), RECIPIENTS)
def test_a_refused_recipient_is_nothing_of_the_accounts(dialect, status, body):
    outcome = read(dialect, status, {}, body)
    assert (outcome.category, outcome.certain, outcome.retry_after) == ("validation", False, None)
    assert not outcome.refuses_account


@pytest.mark.parametrize(
    ("dialect", "status", "body"),
    [
        ("slack", 403, "invalid_token"),
        ("slack", 200, {"ok": False, "error": "account_inactive"}),
        ("discord", 403, {"message": "You need to verify your account", "code": 40002}),
        ("telegram", 200, telegram(401, "Unauthorized")),
    ],
)
def test_messengers_refuse_their_own_accounts_too(dialect, status, body):
    outcome = read(dialect, status, {}, body)
    assert (outcome.category, outcome.certain) == ("auth", True)


def test_a_missing_permission_of_slacks_may_be_another_accounts():
    outcome = read("slack", 200, {}, {"ok": False, "error": "missing_scope"})
    assert (outcome.category, outcome.scope, outcome.certain) == ("auth", "key", False)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, {"x-amzn-errortype": "ThrottlingException:http://internal"}, {"message": "Rate exceeded"}),
        (400, {}, {"__type": "com.amazonaws#ProvisionedThroughputExceededException"}),
        (403, {}, {"error": {"code": 403, "errors": [{"reason": "userRateLimitExceeded"}]}}),
        (400, {}, {"errors": [{"message": "Rate limit", "extensions": {"code": "RATELIMITED"}}]}),
        (429, {}, {"status": 429, "error": "INSUFFICIENT QUOTA", "message": "Your limit of concurrent requests."}),
    ],
)
def test_limits_under_other_statuses(status, headers, body):
    outcome = read("generic", status, {**headers, "Retry-After": "3"}, body)
    assert (outcome.category, outcome.retry_after) == ("rate_limited", 3.0)


def test_a_model_that_is_not_in_the_plan_waits_for_no_short_delay():
    violation = {
        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        "quotaMetric": "x",
        "quotaValue": "0",
    }
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "25s"},
    ]
    body = json.dumps([{"error": {"code": 429, "message": "You exceeded your current quota", "details": details}}])
    outcome = read("gemini", 429, {}, body, now=NOW)
    assert (outcome.category, outcome.scope, outcome.retry_after) == ("quota_exhausted", "model", 57783.0)


def test_the_figures_of_an_unrecognised_caller_are_not_the_accounts():
    headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 3600)}
    outcome = read("github", 401, headers, {"message": "Bad credentials"}, now=NOW)
    assert (outcome.category, outcome.learned, outcome.retry_after) == ("auth", {}, None)
