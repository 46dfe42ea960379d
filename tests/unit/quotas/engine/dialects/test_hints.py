"""Hints: every form is read for every dialect, "now" is a short wait, and merged values are one value."""

from __future__ import annotations

import pytest

from quotas.engine.dialects import DIALECTS, read
from quotas.engine.dialects.retry_hints import in_text
from quotas.engine.dialects.wait_values import FLOOR
from tests.unit.quotas.engine.dialects.test_certainty import openai_error

NOW = 1_695_999_417.0
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.2s"}
FORMS = [
    ({"retry-after": "7"}, None, 7.0),
    ({"retry-after-ms": "2500"}, None, 2.5),
    ({"x-ms-retry-after-ms": "2500"}, None, 2.5),
    ({"x-amz-retry-after": "2500"}, None, 2.5),
    ({}, {"error": {"code": 429, "message": "Quota", "details": [RETRY]}}, 38.2),
    ({}, [{"error": {"code": 429, "message": "Quota", "details": [RETRY]}}], 38.2),
    ({}, {"error": {"message": "Rate limit reached. Please try again in 20s. Visit"}}, 20.0),
    ({}, {"error": {"message": "Please retry after 6 seconds."}}, 6.0),
    ({}, {"error": {"message": "Please wait 68143 seconds before retrying."}}, 68143.0),
    ({}, {"detail": "Request was throttled. Expected available in 37 seconds."}, 37.0),
    ({}, {"error": {"message": "x", "metadata": {"headers": {"Retry-After": "9"}}}}, 9.0),
    ({}, {"error": {"message": "x", "metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1695999425000"}}}}, 8.0),
    ({}, {"error": {"message": "x", "metadata": {"retry_after_seconds": 12}}}, 12.0),
    ({}, {"parameters": {"retry_after": 5}, "description": "Too Many Requests"}, 5.0),
    ({}, {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}, 64.57),
    ({}, {"error": {"message": "x", "retry_after": 3}}, 3.0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "17s"}, None, 17.0),
    ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2023-09-29T14:57:07Z"}, None, 10.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1695999447"}, None, 30.0),
    ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1695999447"}, None, 30.0),
    ({"ratelimit-remaining": "0", "ratelimit-reset": "50"}, None, 50.0),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "body", "wait"), FORMS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_form_is_read_for_every_dialect(dialect, headers, body, wait):
    outcome = read(dialect, 429, headers, body, now=NOW)
    assert (outcome.category, outcome.retry_after) == ("rate_limited", pytest.approx(wait))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_servers_own_trouble_waits_for_explicit_hints_in_every_form(dialect):
    assert read(dialect, 503, {"retry-after-ms": "2500"}, None).retry_after == 2.5
    assert read(dialect, 503, {}, {"error": {"details": [RETRY]}}).retry_after == 38.2
    assert read(dialect, 400, {"retry-after-ms": "2500"}, None).retry_after is None
    assert read(dialect, 200, {"retry-after-ms": "2500"}, None).retry_after is None


def test_the_dialects_own_form_comes_first():
    both = {"retry-after-ms": "1500", "retry-after": "2"}
    assert read("openai", 429, both, openai_error("Please try again in 20s", "rate_limit_exceeded")).retry_after == 1.5
    own = {"ok": False, "error_code": 429, "description": "Too Many", "parameters": {"retry_after": 5}}
    assert read("telegram", 429, {"retry-after": "9", "retry-after-ms": "1500"}, own).retry_after == 5.0
    assert read("discord", 429, {"retry-after": "65"}, {"retry_after": 64.57, "global": True}).retry_after == 64.57


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        *(
            ({"retry-after": value}, None)
            for value in ("0", "0.0", "0.001", "-1", "-10", "Fri, 29 Sep 2023 14:56:50 GMT")
        ),
        ({"retry-after": str(int(NOW) - 5)}, None),
        ({"retry-after-ms": "0"}, None),
        ({"retry-after-ms": "-300"}, None),
        ({"retry-after-ms": "1"}, None),
        ({}, {"parameters": {"retry_after": 0}}),
        ({}, {"error": {"details": [{**RETRY, "retryDelay": "0s"}]}}),
        ({}, {"error": {"message": "Please try again in 0s."}}),
        ({}, {"retry_after": 0.0, "global": True}),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW))}, None),
    ],
)
def test_now_is_a_short_wait_and_never_the_default(dialect, headers, body):
    assert read(dialect, 429, headers, body, now=NOW).retry_after == FLOOR == 1.0


def test_a_hint_for_now_gives_way_to_one_that_names_a_time():
    limited = openai_error("Rate limit reached. Please try again in 20s.", "rate_limit_exceeded")
    assert read("openai", 429, {"retry-after": "0"}, limited).retry_after == 20.0
    assert read("anthropic", 429, {"retry-after": "0", "retry-after-ms": "340"}, None).retry_after == 0.34
    assert read("openai", 429, {}, openai_error("Please try again in 86ms.", None)).retry_after == 0.086


def test_a_daily_quota_outranks_a_delay_of_zero():
    violation = {
        "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        "quotaMetric": "x",
        "quotaValue": "250",
    }
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]},
        {**RETRY, "retryDelay": "0s"},
    ]
    body = {"error": {"code": 429, "message": "Please retry in 964.972314ms.", "details": details}}
    outcome = read("gemini", 429, {}, body, now=NOW)
    assert (outcome.category, outcome.retry_after) == ("quota_exhausted", 57783.0)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("Please try again in 1m30.5s.", 90.5),
        ("try again in 2 minutes and 5 seconds", 125.0),
        ("Please try again in 1 hour.", 3600.0),
        ("Retrying in 3 minutes, 2 seconds", 182.0),
        ("Flood control exceeded. Retry in 35.0 seconds", 35.0),
        ("Too Many Requests: retry after 5", 5.0),
        ("Quota will be replenished in 12:23:22.", 44602.0),
        ("Rate limit of 50 per 86400s exceeded. Please wait 68143 seconds before retrying.", 68143.0),
        ("Limit 3 / min. Please try again in 20s.", 20.0),
        ("Please try again later.", None),
        ("wait for 5 people", None),
        ("Retry your request. We have 20 servers", None),
        ("available in 20 megabytes", None),
        ("try again in 99999999999999s", None),
    ],
)
def test_waits_in_words(text, wait):
    assert in_text(text) == wait


MERGED = [
    ("openai", {"x-ratelimit-limit-requests": "60, 60", "x-ratelimit-remaining-requests": "0, 0", "x-ratelimit-reset-requests": "17s, 17s"}, "requests", (60, 0, 17.0)),
    ("openai", {"x-ratelimit-limit-requests": ["60", "60"], "x-ratelimit-remaining-requests": ["3", "0"], "x-ratelimit-reset-requests": ["9s", "17s"]}, "requests", (60, 0, 17.0)),
    ("anthropic", {"anthropic-ratelimit-tokens-limit": "80000, 80000", "anthropic-ratelimit-tokens-remaining": "0, 0", "anthropic-ratelimit-tokens-reset": "2023-09-29T14:57:07Z, 2023-09-29T14:57:07Z"}, "tokens", (80000, 0, 10.0)),
    ("azure", {"x-ratelimit-limit-tokens": "9,9", "x-ratelimit-remaining-tokens": "0,0", "x-ratelimit-reset-tokens": "5,5"}, "tokens", (9, 0, 5.0)),
    ("github", {"x-ratelimit-limit": "5000, 5000", "x-ratelimit-remaining": "0, 0", "x-ratelimit-reset": "1695999447, 1695999447"}, "requests", (5000, 0, 30.0)),
    ("mistral", {"x-ratelimit-limit-req-minute": "5, 5", "x-ratelimit-remaining-req-minute": "0, 0"}, "requests", (5, 0, None)),
    ("discord", {"x-ratelimit-limit": "5, 5", "x-ratelimit-remaining": "0, 0", "x-ratelimit-reset-after": "2.5, 2.5", "x-ratelimit-bucket": "abcd, abcd"}, "requests_abcd", (5, 0, 2.5)),
    ("shopify", {"x-shopify-shop-api-call-limit": "40/40, 40/40"}, "requests", (40, 0, 20.0)),
    ("ietf", {"ratelimit-limit": "60, 60", "ratelimit-remaining": "0, 0", "ratelimit-reset": "50, 50"}, "requests", (60, 0, 50.0)),
    ("generic", {"x-ratelimit-limit": "10, 10;w=1;name=\"per-ip\"", "x-ratelimit-remaining": "0, 0", "x-ratelimit-reset": "1, 1"}, "requests", (10, 0, 1.0)),
    ("generic", {"x-rate-limit-limit": "9, 9", "x-rate-limit-remaining": "0, 0", "x-rate-limit-reset": "Fri, 29 Sep 2023 14:57:27 GMT, Fri, 29 Sep 2023 14:57:27 GMT"}, "requests", (9, 0, 30.0)),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "headers", "unit", "quota"), MERGED)
def test_values_that_were_merged_on_the_way(dialect, headers, unit, quota):
    learned = read(dialect, 200, headers, now=NOW).learned[unit]
    assert (learned.limit, learned.remaining, learned.reset_after) == quota


def test_merged_fields_of_other_kinds():
    unified = {
        "anthropic-ratelimit-unified-status": "rejected, rejected",
        "retry-after": "60, 60",
        "retry-after-ms": "9,9",
    }
    outcome = read("anthropic", 429, unified)
    assert (outcome.category, outcome.retry_after) == ("quota_exhausted", 60.0)
    date = "Fri, 29 Sep 2023 14:56:57 GMT"
    headers = {"date": f"{date}, {date}", "retry-after": "Fri, 29 Sep 2023 14:57:27 GMT"}
    assert read("openai", 429, headers, now=NOW + 3600).retry_after == 30.0
    custom = {"limits": {"requests": {"limit": "X-Max", "remaining": "X-Left"}}}
    assert read("generic", 200, {"x-max": "5, 5", "x-left": "0, 0"}, settings=custom).learned["requests"].remaining == 0
