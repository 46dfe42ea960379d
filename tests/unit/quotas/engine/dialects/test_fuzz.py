"""Any bytes in: never an exception, never a nonsense wait, never a quota out of nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from quotas.engine.categories import OF_CALLS
from quotas.engine.costs import MAX_COST
from quotas.engine.dialects import DIALECTS, read
from quotas.engine.dialects.wait_values import MAX_WAIT

NAMES = [
    "Retry-After", "retry-after-ms", "x-ms-retry-after-ms", "Date", "Age", "RateLimit", "RateLimit-Policy",
    "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "x-ratelimit-limit", "x-ratelimit-remaining",
    "x-ratelimit-reset", "x-ratelimit-reset-after", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-unified-status", "anthropic-ratelimit-unified-reset", "X-Shopify-Shop-Api-Call-Limit",
    "x-ratelimit-bucket", "x-ratelimit-scope", "x-ratelimit-tokens-query-cost", "x-ratelimit-renewalperiod-tokens",
]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        ["0", "-1", "+5", "1_000", "１２", "1e400", "nan", "inf", "9" * 35, "1" * 17, "6m0s", "9" * 9 + "h", "rejected"]
        + ["Fri, 29 Sep 2023 16:26:57 GMT", "Fri, 31 Feb 9999 16:26:57 GMT", "Friday, 29-Sep-00 16:26:57 GMT"]
        + ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", '"a";r=5;t=9', "limit=1, remaining=0, reset=9"]
        + ['"a";q=999999999999999;w=0', "0/0", "5/0", "1695999417000", "1695999417"]
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.binary(max_size=40),
    st.none(),
    st.integers(),
    st.floats(),
    st.lists(st.text(max_size=9), max_size=3),
)
HEADERS = st.one_of(
    st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=12)), VALUES, max_size=8),
    st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=8),
    st.none(),
)
WORDS = st.sampled_from(
    ["error", "message", "code", "type", "details", "@type", "RetryInfo", "retryDelay", "QuotaFailure", "violations"]
    + ["quotaId", "PerDay", "quotaValue", "usage", "total_tokens", "parameters", "retry_after", "ok", "error_code"]
    + ["extensions", "cost", "throttleStatus", "maximumAvailable", "currentlyAvailable", "restoreRate", "errors"]
    + ["global", "usageMetadata", "totalTokenCount", "reason", "description", "status", "requestedQueryCost"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=5)),
    max_leaves=25,
)
BODIES = st.one_of(st.binary(max_size=200), st.text(max_size=200), JSON, JSON.map(json.dumps), st.just("[" * 5000))


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(DIALECTS),
    st.one_of(st.sampled_from([200, 400, 401, 403, 404, 408, 429, 500, 503, 529]), st.integers(), st.none()),
    HEADERS,
    BODIES,
    st.one_of(st.none(), st.dictionaries(st.sampled_from(["limits", "usage", "codes", "retry_after"]), JSON)),
)
def test_anything_at_all(dialect, status, headers, body, options):
    outcome = read(dialect, status, headers, body, settings=options, secrets=["s3cret"], now=1_695_999_417.0)
    assert outcome.category in ("ok", *OF_CALLS)
    assert outcome.retry_after is None or 0 < outcome.retry_after <= MAX_WAIT
    assert outcome.scope in ("account", "key", "model", "pool")
    assert len(outcome.error) <= 300
    assert "s3cret" not in outcome.error
    assert all(type(units) is int and 0 <= units <= MAX_COST for units in outcome.usage.values())
    for unit, quota in outcome.learned.items():
        assert isinstance(unit, str)
        for count in (quota.limit, quota.remaining):
            assert count is None or (type(count) is int and 0 <= count <= MAX_COST)
        assert quota.limit != 0
        assert quota.reset_after is None or 0 <= quota.reset_after <= MAX_WAIT
        assert quota.window is None or 0 < quota.window < 1e20
        json.dumps(asdict(quota), allow_nan=False)
