"""Policies of endpoints are found by the beginnings of a path; the result is that of looking at every pattern."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quotas.models import Policy
from quotas.snapshot.index import Bucket, WildPolicies
from quotas.snapshot.patterns import endpoint_of
from quotas.snapshot.policies import CompiledPolicy

SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "*", "..", ""]), min_size=1, max_size=4)
PATHS = st.one_of(SEGMENTS.map(lambda parts: "/" + "/".join(parts)), st.just("*"))
METHODS = st.sampled_from(["", "GET ", "POST "])


def policy(number: int, match: str) -> CompiledPolicy:
    row = Policy(
        pk=number, name=f"p{number:05}", scope="endpoint", algorithm="fixed_window", limit=1, window=60, match=match
    )
    return CompiledPolicy.of(row, [], 64)


@given(st.lists(st.tuples(METHODS, PATHS), max_size=12), SEGMENTS, st.sampled_from(["GET", "POST", None]))
def test_the_result_is_that_of_looking_at_every_pattern(
    patterns: list[tuple[str, str]], parts: list[str], method: str | None
) -> None:
    policies = [policy(number, verb + path) for number, (verb, path) in enumerate(patterns, 1)]
    bucket = Bucket()
    for one in policies:
        bucket.add(one)
    endpoint = endpoint_of("/" + "/".join(parts))
    wild = [
        one.name
        for one in policies
        if one.pattern and not one.pattern.exact and endpoint.matched_by(one.pattern, method)
    ]
    exact = [
        one.name for one in policies if one.pattern and one.pattern.exact and endpoint.matched_by(one.pattern, method)
    ]
    found = [one.name for one in bucket.endpoints(method, endpoint)]
    assert sorted(found) == sorted(wild + exact)
    assert [name for name in found if name in wild] == wild, "in the order of their names"


def test_patterns_of_other_paths_are_not_looked_at() -> None:
    wild = WildPolicies()
    for number in range(1000):
        wild.add(policy(number + 1, f"POST /v2/{number}/*"))
    for number, match in enumerate(("/v1/*", "*", "GET /v1/chat/*/messages"), 1001):
        wild.add(policy(number, match))
    names = [one.name for one in wild.candidates(endpoint_of("/v1/chat/77"))]
    assert names == ["p01001", "p01002", "p01003"]
    assert [one.name for one in wild.candidates(endpoint_of("/v2/7/x"))] == ["p00008", "p01002"]
