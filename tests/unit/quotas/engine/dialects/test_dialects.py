"""Real answers of providers, dialect by dialect."""

from __future__ import annotations

import json

import httpx
import pytest
import urllib3

from quotas.engine.dialects import DIALECTS, failed, read
from quotas.engine.learned import LearnedQuota

NOW = 1_695_999_417.0
"""Fri, 29 Sep 2023 14:56:57 GMT, 07:56:57 in California."""


def bucket(limit, remaining, reset_after, window):
    return LearnedQuota(limit, remaining, reset_after, window, "bucket")


def stepping(limit, remaining, reset_after, window=None):
    return LearnedQuota(limit, remaining, reset_after, window)


def test_openai_learns_both_units_and_the_use():
    headers = {
        "X-RateLimit-Limit-Requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "160000",
        "x-ratelimit-remaining-tokens": "159976",
        "x-ratelimit-reset-tokens": "9ms",
    }
    outcome = read("openai", 200, headers, {"usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
    assert outcome.category == "ok"
    assert outcome.retry_after is None
    assert outcome.usage == {"tokens": 12}
    assert outcome.learned == {
        "requests": bucket(5000, 4999, 0.012, 60.0),
        "tokens": bucket(160000, 159976, 0.009, 60.0),
    }


def test_openai_daily_requests_show_in_the_slow_refill():
    headers = {
        "x-ratelimit-limit-requests": "200",
        "x-ratelimit-remaining-requests": "199",
        "x-ratelimit-reset-requests": "7m12s",
    }
    assert read("openai", 200, headers).learned["requests"] == bucket(200, 199, 432.0, 86400.0)


def openai_error(message, code="rate_limit_exceeded", kind="requests"):
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after": "56"}, "Rate limit reached", 56.0),
        ({"retry-after": "1", "retry-after-ms": "52"}, "Rate limit reached", 0.052),
        ({"retry-after": "1", "retry-after-ms": "-5"}, "Rate limit reached", 1.0),
        ({}, "Rate limit reached. Please try again in 20s. Visit", 20.0),
        ({}, "Limit 3. Please try again in 6m0.5s. Visit", 360.5),
        ({}, "Please try again in 86ms.", 0.086),
        ({}, "Please try again later.", None),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "17s",
                "x-ratelimit-limit-tokens": "9000",
                "x-ratelimit-remaining-tokens": "10",
                "x-ratelimit-reset-tokens": "59s",
            },
            "Rate limit reached",
            17.0,
        ),
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "4",
                "x-ratelimit-reset-requests": "17s",
                "x-ratelimit-limit-tokens": "9000",
                "x-ratelimit-remaining-tokens": "10",
                "x-ratelimit-reset-tokens": "59s",
            },
            "Rate limit reached",
            59.0,
        ),
    ],
)
def test_openai_hints_by_priority(headers, message, wait):
    outcome = read("openai", 429, headers, openai_error(message))
    assert (outcome.category, outcome.retry_after) == ("rate_limited", wait)


def test_openai_separates_quota_from_rate_and_model_from_account():
    spent = read("openai", 429, {}, openai_error("You exceeded your current quota", "insufficient_quota"))
    assert (spent.category, spent.retry_after) == ("quota_exhausted", None)
    model = read("openai", 429, {}, openai_error("Rate limit reached for gpt-4o in organization org-x on requests"))
    assert model.scope == "model"
    account = read("openai", 429, {}, openai_error("Rate limit reached for organization org-x on requests per min"))
    assert account.scope == "account"


def test_azure():
    headers = {"x-ratelimit-remaining-requests": "45", "x-ratelimit-reset-requests": "12", "Retry-After": "6"}
    outcome = read("azure", 429, headers, {"error": {"code": "429", "message": "Please retry after 6 seconds"}})
    assert (outcome.category, outcome.retry_after) == ("rate_limited", 6.0)
    assert outcome.learned["requests"] == bucket(None, 45, 12.0, 60.0)
    by_text = read("azure", 429, {}, {"error": {"code": "429", "message": "Please retry after 6 seconds."}})
    assert by_text.retry_after == 6.0
    unknown = {
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "0",
    }
    assert read("azure", 200, unknown).learned == {}


def test_anthropic():
    headers = {
        "date": "Fri, 29 Sep 2023 14:56:57 GMT",
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "999",
        "anthropic-ratelimit-requests-reset": "2023-09-29T14:57:00Z",
        "anthropic-ratelimit-input-tokens-limit": "80000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2023-09-29T09:57:57-05:00",
    }
    usage = {"input_tokens": 10, "cache_read_input_tokens": 900, "output_tokens": 5}
    ok = read("anthropic", 200, headers, {"usage": usage}, now=NOW + 3600)
    assert ok.usage == {"tokens": 15}
    assert ok.learned["requests"] == bucket(1000, 999, 3.0, 60.0)
    assert ok.learned["input_tokens"] == bucket(80000, 0, 60.0, 60.0)
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed"}}
    assert read("anthropic", 429, headers, error, now=NOW).retry_after == 60.0
    assert read("anthropic", 429, {"retry-after": "2892"}, error).retry_after == 2892.0
    overloaded = read("anthropic", 529, {}, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}})
    assert overloaded.category == "server"
    unified = {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": "1696006617"}
    outcome = read("anthropic", 429, unified, error, now=NOW)
    assert (outcome.category, outcome.retry_after) == ("quota_exhausted", 7200.0)


def gemini_error(*details, status=429):
    return {
        "error": {"code": status, "message": "You exceeded", "status": "RESOURCE_EXHAUSTED", "details": list(details)}
    }


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "25.238747106s"}


def quota_failure(quota_id, value="250"):
    violation = {"quotaMetric": "generate_content_free_tier_requests", "quotaId": quota_id, "quotaValue": value}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def test_gemini_by_minute_and_by_day():
    minute = quota_failure("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
    outcome = read("gemini", 429, {}, gemini_error(minute, RETRY), now=NOW)
    assert (outcome.category, outcome.scope) == ("rate_limited", "model")
    assert outcome.retry_after == pytest.approx(25.238747106)
    assert outcome.learned["requests"].limit == 250
    day = quota_failure("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
    until_midnight = (16 * 60 + 3) * 60 + 3
    for body in (gemini_error(day, RETRY), [gemini_error(day)], json.dumps(json.dumps(gemini_error(day)))):
        outcome = read("gemini", 429, {}, body, now=NOW)
        assert (outcome.category, outcome.retry_after) == ("quota_exhausted", until_midnight)
    long = {**RETRY, "retryDelay": "65205s"}
    assert read("gemini", 429, {}, gemini_error(long), now=NOW).retry_after == 65205.0


def test_gemini_capacity_bad_keys_and_use():
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "MODEL_CAPACITY_EXHAUSTED"}
    assert read("gemini", 429, {}, gemini_error(reason)).category == "server"
    bad = read("gemini", 400, {}, gemini_error({**reason, "reason": "API_KEY_INVALID"}, status=400))
    assert (bad.category, bad.scope) == ("auth", "account")
    assert read("gemini", 200, {}, {"usageMetadata": {"totalTokenCount": 33}}).usage == {"tokens": 33}


def test_groq_counts_requests_by_the_day():
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "7.66s",
        "retry-after": "2",
    }
    outcome = read("groq", 429, headers)
    assert outcome.retry_after == 2.0
    assert outcome.learned["requests"] == bucket(14400, 14370, 179.56, 86400.0)
    assert outcome.learned["tokens"] == bucket(18000, 17997, 7.66, 60.0)


def test_mistral():
    headers = {
        "x-ratelimit-limit-tokens-minute": "5000000",
        "x-ratelimit-remaining-tokens-minute": "4999911",
        "x-ratelimit-tokens-query-cost": "52",
        "x-ratelimit-limit-req-minute": "720",
        "x-ratelimit-remaining-req-minute": "717",
    }
    outcome = read("mistral", 200, headers)
    assert outcome.learned["tokens"] == stepping(5000000, 4999911, None, window=60.0)
    assert outcome.learned["requests"] == stepping(720, 717, None, window=60.0)
    assert outcome.usage == {"tokens": 52}
    spent = {"x-ratelimit-limit-tokens-month": "10", "x-ratelimit-remaining-tokens-month": "0"}
    assert read("mistral", 429, spent).category == "quota_exhausted"


def test_telegram():
    def body(code, description, **more):
        return {"ok": False, "error_code": code, "description": description, **more}

    limited = read("telegram", 429, {}, body(429, "Too Many Requests: retry after 5", parameters={"retry_after": 5}))
    assert (limited.category, limited.scope, limited.retry_after) == ("rate_limited", "key", 5.0)
    assert read("telegram", 429, {}, body(429, "Too Many Requests: retry after 7")).retry_after == 7.0
    moved = read("telegram", 400, {}, body(400, "group upgraded", parameters={"migrate_to_chat_id": -1001}))
    assert moved.category == "validation"
    blocked = read("telegram", 403, {}, body(403, "Forbidden: bot was blocked by the user"))
    assert (blocked.category, blocked.scope) == ("validation", "key")
    for status, words in ((401, "Unauthorized"), (404, "Not Found")):
        bad = read("telegram", status, {}, body(status, words))
        assert (bad.category, bad.scope) == ("auth", "account")
    assert read("telegram", 404, {}, body(404, "Not Found: method not found")).category == "validation"


def test_github():
    headers = {
        "x-ratelimit-limit": "5000",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-used": "5000",
        "x-ratelimit-reset": str(int(NOW) + 600),
        "x-ratelimit-resource": "core",
    }
    primary = read("github", 403, headers, {"message": "API rate limit exceeded for user ID 1."}, now=NOW)
    assert (primary.category, primary.scope, primary.retry_after) == ("rate_limited", "model", 600.0)
    assert primary.resource == "core"
    headers["x-ratelimit-remaining"] = "4978"
    secondary = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}
    assert read("github", 403, headers, secondary, now=NOW).retry_after == 60.0
    assert read("github", 429, {**headers, "retry-after": "90"}, secondary, now=NOW).retry_after == 90.0
    denied = read("github", 403, headers, {"message": "Resource not accessible by integration"}, now=NOW)
    assert (denied.category, denied.scope, denied.retry_after) == ("auth", "key", None)
    headers["x-ratelimit-resource"] = "search"
    search = read("github", 200, headers, now=NOW)
    assert (search.resource, set(search.learned)) == ("search", {"requests"})


def test_slack():
    limited = read("slack", 429, {"Retry-After": "30"}, '{"ok":false,"error":"ratelimited"}')
    assert (limited.category, limited.retry_after) == ("rate_limited", 30.0)
    assert read("slack", 200, {}, '{"ok":false,"error":"ratelimited"}').category == "rate_limited"
    assert read("slack", 200, {}, '{"ok":false,"error":"channel_not_found"}').category == "validation"
    revoked = read("slack", 200, {}, '{"ok":false,"error":"token_revoked"}')
    assert (revoked.category, revoked.scope) == ("auth", "account")
    assert read("slack", 200, {}, '{"ok":true}').category == "ok"


def test_discord():
    headers = {
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "9",
        "X-RateLimit-Reset": "1470173023.123",
        "X-RateLimit-Reset-After": "64.57",
        "X-RateLimit-Bucket": "abcd1234",
    }
    assert read("discord", 200, headers).learned == {"requests_abcd1234": stepping(10, 9, 64.57)}
    body = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}
    own = read("discord", 429, {**headers, "X-RateLimit-Scope": "user", "Retry-After": "65"}, body)
    assert (own.scope, own.retry_after) == ("key", 64.57)
    shared = read("discord", 429, {**headers, "X-RateLimit-Scope": "shared", "Retry-After": "1337"}, {"global": False})
    assert (shared.scope, shared.retry_after, shared.learned) == ("key", 1337.0, {})
    everywhere = read("discord", 429, {"X-RateLimit-Global": "true", "Retry-After": "65"}, {**body, "global": True})
    assert everywhere.scope == "account"
    assert read("discord", 429, {"Retry-After": "65"}, "<html>error 1015</html>").scope == "account"


def test_shopify():
    headers = {"X-Shopify-Shop-Api-Call-Limit": "32/40", "Retry-After": "2.0"}
    outcome = read("shopify", 429, headers)
    assert outcome.retry_after == 2.0
    assert outcome.learned["requests"] == bucket(40, 8, 16.0, 20.0)
    throttled = {
        "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
        "extensions": {
            "cost": {
                "requestedQueryCost": 101,
                "actualQueryCost": None,
                "throttleStatus": {"maximumAvailable": 1000.0, "currentlyAvailable": 1, "restoreRate": 50.0},
            }
        },
    }
    outcome = read("shopify", 200, {}, throttled)
    assert (outcome.category, outcome.retry_after) == ("rate_limited", 2.0)
    assert outcome.learned["points"] == bucket(1000, 1, pytest.approx(19.98), 20.0)


@pytest.mark.parametrize(
    ("headers", "learned"),
    [
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "99", "RateLimit-Reset": "50"},
            {"requests": stepping(100, 99, 50.0, window=60.0)},
        ),
        (
            {"RateLimit-Limit": "60", "RateLimit-Remaining": "59", "RateLimit-Reset": str(int(NOW) + 5)},
            {"requests": stepping(60, 59, 5.0)},
        ),
        (
            {"RateLimit": "limit=100, remaining=50, reset=30", "RateLimit-Policy": "100;w=60"},
            {"requests": stepping(100, 50, 30.0, window=60.0)},
        ),
        (
            {
                "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
                "RateLimit": '"burst";r=80;t=30, "daily";r=50;t=4000',
            },
            {"requests": stepping(1000, 50, 4000.0, window=86400.0)},
        ),
        (
            {"RateLimit-Policy": '"b";q=9000;w=60;qu="content-bytes"', "RateLimit": '"b";r=80;t=30;pk=:cHJvag==:'},
            {"content-bytes": stepping(9000, 80, 30.0, window=60.0)},
        ),
        ({"RateLimit": '"default";r=50;t=30'}, {"requests": stepping(None, 50, 30.0)}),
        ({"RateLimit": '"default;r=50'}, {}),
        ({"RateLimit": '"default";r=-1;t=30'}, {}),
        ({"RateLimit": '"default";r=1.5;t=30'}, {}),
        ({"RateLimit": "limit=x"}, {}),
        ({"RateLimit-Remaining": "many"}, {}),
    ],
)
@pytest.mark.parametrize("dialect", ["ietf", "generic"])
def test_the_ietf_fields_in_three_syntaxes(headers, learned, dialect):
    assert read(dialect, 200, headers, now=NOW).learned == learned


def test_reduced_capacity_is_the_servers_own_trouble():
    body = {"type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity", "title": "x"}
    assert read("ietf", 429, {"Retry-After": "3"}, body).category == "server"


def test_generic_knows_the_usual_names():
    x = {"X-Rate-Limit-Limit": "900", "X-Rate-Limit-Remaining": "847", "X-Rate-Limit-Reset": str(int(NOW) + 9)}
    assert read("generic", 200, x, now=NOW).learned == {"requests": stepping(900, 847, 9.0)}
    jira = {"X-RateLimit-Limit": "350", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2023-09-29T15:00:00Z"}
    assert read("generic", 429, jira, now=NOW).retry_after == 183.0
    assert read("no-such-dialect", 429, {"Retry-After": "4"}).retry_after == 4.0


def test_generic_by_configuration():
    settings = {
        "limits": {
            "requests": {"limit": "X-Max", "used": "X-Used", "reset": "X-When", "encoding": "epoch_ms", "window": 60},
            "credits": {"remaining": "X-Credits", "kind": "bucket"},
        },
        "retry_after": ["X-Wait"],
        "retry_after_encoding": "ms",
        "rate_limited": [430],
        "codes": {"quota_exhausted": ["OUT_OF_CREDIT"]},
        "code_path": "problem.0.code",
        "usage": {"credits": "meta.credits"},
        "scope": "key",
    }
    headers = {"X-Max": "10", "X-Used": "12", "X-When": str(int(NOW) * 1000 + 1500), "X-Credits": "3", "X-Wait": "250"}
    outcome = read("generic", 430, headers, {"meta": {"credits": 2}}, settings=settings, now=NOW)
    assert (outcome.category, outcome.scope, outcome.retry_after) == ("rate_limited", "key", 0.25)
    assert outcome.usage == {"credits": 2}
    assert outcome.learned["requests"] == stepping(10, 0, 1.5, window=60.0)
    assert outcome.learned["credits"] == bucket(None, 3, None, None)
    spent = read("generic", 400, {}, {"problem": [{"code": "OUT_OF_CREDIT"}]}, settings=settings)
    assert spent.category == "quota_exhausted"
    odd = {"limits": [1], "retry_after": 5, "codes": 7, "usage": "x", "rate_limited": None, "scope": "moon"}
    assert read("generic", 429, {"Retry-After": "4"}, settings=odd).category == "rate_limited"


@pytest.mark.parametrize(
    ("status", "category"),
    [(200, "ok"), (204, "ok"), (304, "ok"), (400, "validation"), (401, "auth"), (402, "quota_exhausted")]
    + [(403, "auth"), (404, "validation"), (408, "timeout"), (409, "validation"), (422, "validation")]
    + [(429, "rate_limited"), (500, "server"), (503, "server"), (529, "server"), (0, "unknown"), (999, "unknown")],
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_categories_by_status(dialect, status, category):
    assert read(dialect, status, {}, None).category == category


def test_missing_and_malformed_is_not_known():
    for dialect in DIALECTS:
        for junk in ({}, {"x-ratelimit-remaining-requests": ""}, {"x-ratelimit-limit": "0"}, None, 5, [("a",)], {1: 2}):
            outcome = read(dialect, 200, junk, b"\xff\x00")
            assert (outcome.category, outcome.learned, outcome.retry_after) == ("ok", {}, None)


def test_a_servers_error_waits_for_its_own_hint_only():
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "17s"}
    assert read("openai", 503, headers).retry_after is None
    assert read("openai", 503, {**headers, "retry-after": "4"}).retry_after == 4.0
    assert read("openai", 400, {"retry-after": "4"}).retry_after is None


def test_headers_come_in_many_shapes():
    for headers in (
        {"Retry-After": "5"},
        {"retry-after": ["3", "5"]},
        [("Retry-After", "3"), ("RETRY-AFTER", "5")],
        [(b"retry-after", b"5")],
        {"retry-after": 5},
    ):
        assert read("generic", 429, headers).retry_after == 5.0


def test_calls_without_an_answer():
    assert failed("timeout").category == "timeout"
    assert failed("network", "connect to https://u:p@host failed").error == "connect to https://[redacted]@host failed"
    assert failed("odd").category == "unknown"


def _urllib3(pairs):
    fields = urllib3.HTTPHeaderDict()
    for name, value in pairs:
        fields.add(name, value)
    return fields


@pytest.mark.parametrize(
    "form",
    [
        dict, list, tuple, lambda pairs: dict(pairs).items(), _urllib3, lambda pairs: _urllib3(pairs).items(),
        httpx.Headers, lambda pairs: httpx.Headers(pairs).multi_items(),
        lambda pairs: [(name.encode(), value.encode()) for name, value in pairs],
    ],
)  # fmt: skip
def test_headers_are_read_in_the_form_of_every_client(form):
    pairs = [("x-ratelimit-limit-requests", "600"), ("x-ratelimit-remaining-requests", "27"), ("retry-after", "3")]
    outcome = read("openai", 429, form(pairs), None)
    assert outcome.learned["requests"].remaining == 27 and outcome.retry_after == 3.0


def test_openrouter_has_its_fields_in_the_bodys_metadata():
    fields = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((NOW + 500) * 1000)}
    body = {"error": {"code": 429, "message": "free-models-per-day", "metadata": {"headers": fields}}}
    outcome = read("generic", 429, {}, body, now=NOW)
    assert outcome.retry_after == 500.0 and outcome.learned["requests"] == stepping(50, 0, 500.0)
    for odd in (None, 5, [], {"headers": 7}, {"headers": {"X-RateLimit-Limit": {}}}):
        assert read("generic", 429, {}, {"error": {"metadata": odd}}, now=NOW).learned == {}


@pytest.mark.parametrize(
    ("dialect", "field", "unit", "resource"),
    [
        ("github", "x-ratelimit-resource", "requests", "other"),
        ("discord", "x-ratelimit-bucket", "requests_other", None),
    ],
)
def test_what_names_a_quota_is_no_place_for_a_credential(dialect, field, unit, resource):
    fields = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", field: "sk-live-0123456789"}
    outcome = read(dialect, 200, fields)
    assert (list(outcome.learned), outcome.resource) == ([unit], resource)
