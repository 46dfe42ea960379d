"""`Retry-After`: the right wait where there is one, 0.0 for now, else none; always bounded."""

from __future__ import annotations

import time

import pytest

from quotas.engine.dialects import read
from quotas.engine.dialects.dates import http_date, rfc_3339
from quotas.engine.dialects.wait_values import MAX_WAIT, reset, retry_after

NOW = 1_695_999_417.0
"""Fri, 29 Sep 2023 14:56:57 GMT."""


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("120", 120.0),
        (" 120\t", 120.0),
        ("2.0", 2.0),
        ("0.001", 0.0),
        ("0", 0.0),
        ("0.0", 0.0),
        ("-10", 0.0),
        ("+5", None),
        ("1_000", None),
        ("１２", None),
        ("1e400", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("5 5", None),
        ("9" * 35, None),
        ("99999999", MAX_WAIT),
        (str(int(NOW) + 90), 90.0),
        (str((int(NOW) + 90) * 1000), 90.0),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("Fri, 29 Sep 2023 14:58:57 GMT", 120.0),
        ("Friday, 29-Sep-23 14:58:57 GMT", 120.0),
        ("Fri Sep 29 14:58:57 2023", 120.0),
        ("Fri, 29 Sep 2023 14:50:57 GMT", 0.0),
        ("Friday, 29-Sep-23 14:50:57 GMT", 0.0),
        ("Fri Sep 29 14:50:57 2023", 0.0),
        ("Fri, 29 Sep 9999 14:58:57 GMT", MAX_WAIT),
        ("Friday, 29-Sep-70 14:58:57 GMT", MAX_WAIT),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Friday, 29-Sep-99 14:58:57 GMT", None),
        ("Sat Sep 29 14:58:57 9999", MAX_WAIT),
        ("Zun, 29 Sep 2023 14:58:57 GMT", None),
        ("Fri, 31 Sep 2023 14:58:57 GMT", None),
        ("Fri, 29 Sep 2023 24:58:57 GMT", None),
        ("Fri, 29 Sep 100000 14:58:57 GMT", None),
        ("Fri Sep 29 2023 16:58:57 GMT+0200 (Central European Summer Time)", 120.0),
        ("2023-09-29T14:58:57Z", 120.0),
    ],
)
def test_one_field(value, wait):
    assert retry_after([value], NOW) == wait


def test_the_longest_of_several_fields_counts():
    assert retry_after(["5", "120"], NOW) == 120.0
    assert retry_after(["5, 120"], NOW) == 120.0
    assert retry_after(["nonsense", "7"], NOW) == 7.0
    assert retry_after(["Fri, 29 Sep 2023 14:58:57 GMT, 5"], NOW) == 120.0
    assert retry_after(["5, Fri, 29 Sep 2023 14:58:57 GMT"], NOW) == 120.0
    assert retry_after([], NOW) is None


@pytest.mark.parametrize("skew", [3600, -3600, 0])
def test_a_wrong_clock_on_either_side_does_not_matter(skew):
    headers = {"Date": "Fri, 29 Sep 2023 14:56:57 GMT", "Retry-After": "Fri, 29 Sep 2023 14:57:27 GMT"}
    assert read("openai", 429, headers, now=NOW + skew).retry_after == 30.0


def test_a_date_that_is_aged_or_absurd_is_not_believed():
    target = "Fri, 29 Sep 2023 14:57:27 GMT"
    for extra in ({"Date": "Fri, 29 Sep 2023 13:56:57 GMT", "Age": "3600"}, {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        assert read("openai", 429, {**extra, "Retry-After": target}, now=NOW).retry_after == 30.0


def test_without_now_the_own_clock_is_used():
    at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 90 < (read("generic", 429, {"Retry-After": at}).retry_after or 0) <= 100


@pytest.mark.parametrize(
    ("text", "encoding", "seconds"),
    [
        ("6m0s", "auto", 360.0),
        ("2m59.56s", "go", 179.56),
        ("12ms", "go", 0.012),
        ("57.238747106s", "go", 57.238747106),
        ("1h1m1s", "go", 3661.0),
        ("50", "auto", 50.0),
        (str(int(NOW) + 50), "auto", 50.0),
        (str((int(NOW) + 50) * 1000), "auto", 50.0),
        (str(int(NOW) + 50) + ".5", "epoch", 50.5),
        ("50000000000", "auto", None),
        ("1500", "ms", 1.5),
        ("2023-09-29T14:57:57Z", "rfc3339", 60.0),
        ("2023-09-29T16:57:57.250+02:00", "auto", 60.25),
        ("2023-09-29T14:57:57", "auto", None),
        ("0", "auto", 0.0),
        ("-1", "auto", None),
        ("6m0s", "delta", None),
        ("50", "nonsense", None),
        (str(int(NOW) - 5), "epoch", 0.0),
        ("1", "epoch", None),
    ],
)
def test_resets(text, encoding, seconds):
    found = reset(text, NOW, encoding)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_dates_have_their_ends():
    assert rfc_3339("2023-02-30T00:00:00Z") is None
    assert rfc_3339("2023-09-29T14:57:57.123456789Z") == pytest.approx(NOW + 60.123456)
    assert rfc_3339("0000-09-29T14:57:57Z") is None
    assert http_date("Thu, 01 Jan 1970 00:00:00 GMT", NOW) == 0.0
    assert http_date("Sun Nov  6 08:49:37 1994", NOW) == 784111777.0
