"""Every mapping of the configuration is read to its last member: what is not known is a mistake with a suggestion."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import yaml

from controlplane import config
from quotas.engine.categories import LIMITS
from quotas.engine.dialects import generic, settings
from quotas.models import Provider

pytestmark = pytest.mark.django_db

PROVIDER = {"name": "p", "base_url": "https://api.example.com"}
POOL = {"name": "pool", "provider": "p"}


def mistakes(**sections: Any) -> list[str]:
    """What is wrong with such a file."""
    text = yaml.safe_dump({"version": 1, **sections}, default_flow_style=False, sort_keys=False)
    try:
        config.apply(text, actor="test")
    except config.ConfigInvalid as invalid:
        return [str(mistake) for mistake in invalid.mistakes]
    return []


def provider(dialect: str = "generic", **given: Any) -> list[str]:
    return mistakes(providers=[{**PROVIDER, "dialect": dialect, "settings": given}])


GOOD = {
    "limits": {
        "requests": {"limit": "X-Limit", "remaining": "X-Left", "used": "X-Used", "reset": "X-Reset", "encoding": "epoch"},
        "tokens": {"remaining": "X-Tokens", "window": 60, "kind": "bucket"},
    },
    "retry_after": ["X-Wait", "X-Wait-2"],
    "retry_after_encoding": "ms",
    "retry_after_body": "error.details.0.wait",
    "rate_limited": 430,
    "quota_exhausted": [402, 420],
    "codes": {"auth": ["bad_key"], "quota_exhausted": [17]},
    "code_path": "problem.0.code",
    "usage": {"tokens": "meta.tokens"},
    "scope": "key",
}  # fmt: skip


def test_all_settings_at_once_are_taken() -> None:
    assert provider(**GOOD) == []
    assert Provider.objects.get().settings == GOOD


def test_the_forms_are_of_the_settings_that_are_looked_up() -> None:
    source = inspect.getsource(generic)
    looked_up = set(re.findall(r"""settings(?:\.get\(|\[|, )"([a-z_]+)\"""", source))
    assert looked_up | set(LIMITS) == set(settings.FORMS)
    in_limits = set(re.findall(r"""names\.get\("([a-z_]+)\"""", source)) | {"limit", "remaining", "used", "reset"}
    for name in in_limits:
        found = settings.misfits("generic", {"limits": {"requests": {name: object()}}})
        assert found and not found[0].known, f"{name} is a known member"


@pytest.mark.parametrize(
    ("given", "place", "suggested"),
    [
        ({"retry_afterr": "X-Wait"}, "retry_afterr", "retry_after"),
        ({"limit": {}}, "settings.limit", "limits"),
        ({"limits": {"requests": {"remainin": "X"}}}, "limits.requests.remainin", "remaining"),
        ({"codes": {"rate_limit": ["x"]}}, "codes.rate_limit", "rate_limited"),
        ({"useage": {"tokens": "x"}}, "useage", "usage"),
        ({"codepath": "x"}, "codepath", "code_path"),
    ],
)
def test_a_setting_that_is_not_known_is_named_with_its_line(given: Any, place: str, suggested: str) -> None:
    (mistake,) = provider(**given)
    assert place in mistake and f"did you mean {suggested!r}?" in mistake
    assert re.match(r"line [5-9], ", mistake), "the line is the member's own"
    assert not Provider.objects.exists()


@pytest.mark.parametrize(
    "given",
    [
        {"limits": {"requests": {"encoding": "epochs"}}},
        {"limits": {"requests": {"window": "1h"}}},
        {"limits": {"requests": {"window": 0}}},
        {"limits": {"requests": {"kind": "sack"}}},
        {"limits": {"requests": {"limit": 5}}},
        {"limits": {"requests": "X-Limit"}},
        {"limits": ["requests"]},
        {"limits": {"": {"limit": "X"}}},
        {"retry_after": [5]},
        {"retry_after": {"name": "X"}},
        {"retry_after_encoding": "minutes"},
        {"retry_after_body": 5},
        {"rate_limited": "430"},
        {"rate_limited": [99]},
        {"quota_exhausted": True},
        {"codes": {"auth": "bad_key"}},
        {"codes": {"auth": [None]}},
        {"code_path": ["a"]},
        {"usage": {"tokens": 1}},
        {"scope": "user"},
    ],
)
def test_a_setting_of_another_kind_is_refused(given: Any) -> None:
    assert len(provider(**given)) == 1


def test_settings_of_a_dialect_that_reads_none_are_refused() -> None:
    (mistake,) = provider("openai", retry_after="X-Wait")
    assert "settings: are read for the dialect generic only" in mistake
    assert provider("openai") == []


@pytest.mark.parametrize(
    ("sections", "suggested"),
    [
        ({"porjects": []}, "projects"),
        ({"projects": [{"slug": "a", "wieght": 2}]}, "weight"),
        ({"policies": [{"name": "a", "scope": "user", "algoritm": "calendar"}]}, "algorithm"),
        ({"policies": [{"name": "a", "scope": "usr", "algorithm": "calendar", "limit": 1, "period": "day"}]}, "user"),
        (
            {
                "policies": [
                    {
                        "name": "a", "scope": "user", "algorithm": "fixed_window", "window": "1h", "limit": 5,
                        "adaptive": {"floor": 1, "ceiling": 9, "lattency": 1},
                    }
                ]
            },
            "latency",
        ),
        ({"providers": [PROVIDER], "pools": [{**POOL, "breaker": {"failure": 3}}]}, "failures"),
        ({"providers": [PROVIDER], "pools": [{**POOL, "cooldown": {"defualt": 3}}]}, "default"),
        ({"providers": [PROVIDER], "pools": [{**POOL, "concurrency": {"initial": 3, "cieling": 5}}]}, "ceiling"),
        ({"providers": [PROVIDER], "pools": [{**POOL, "limits": [{"limit": 3, "windw": 5}]}]}, "window"),
        ({"providers": [PROVIDER], "pools": [{**POOL, "accounts": [{"name": "a", "credential": "X"}]}]}, "credential_env"),
        ({"retry_policies": [{"name": "r", "by_category": {"servr": "never"}}]}, "server"),
        ({"retry_policies": [{"name": "r", "by_category": {"server": {"intial": 1}}}]}, "initial"),
        ({"queues": [{"name": "q", "max_szie": 3}]}, "max_size"),
        ({"alerts": [{"name": "ops", "when": ["breaker_open"], "to": "webhook+https://example.com"}]}, "breaker_opened"),
    ],
)  # fmt: skip
def test_every_mapping_suggests_what_was_meant(sections: dict[str, Any], suggested: str) -> None:
    assert any(f"did you mean {suggested!r}?" in mistake for mistake in mistakes(**sections))


def test_exceptions_by_category_are_read_to_their_ends() -> None:
    def found(rule: Any) -> list[str]:
        return mistakes(retry_policies=[{"name": "r", "by_category": {"server": rule, "auth": rule}}])

    assert found({"initial": "1s", "max": "2s", "strategy": "linear"}) == []
    assert len(found("sometimes")) == 2, "each one is named"
    assert len(found({"initial": "3s", "max": "2s"})) == 2
    assert len(found({"max_attempts": 2})) == 2


def test_a_queue_that_a_policy_names_must_be_there() -> None:
    policy = {"name": "a", "scope": "queue", "match": "embedings", "algorithm": "concurrency", "limit": 1}
    assert "there is no queue 'embedings'" in mistakes(policies=[policy])[0]
    assert mistakes(queues=[{"name": "embedings"}], policies=[policy]) == []
