"""Whose credential or quota an answer is about: certain refusals of a key, and the resource of a learned quota."""

from __future__ import annotations

import pytest

from quotas.engine.dialects import DIALECTS, read


def openai_error(message, code, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def google(reason, status=400):
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    return {"error": {"code": status, "message": "Refused.", "status": "INVALID_ARGUMENT", "details": [detail]}}


def anthropic(kind, message):
    return {"type": "error", "error": {"type": kind, "message": message}}


CERTAIN = [
    ("openai", 401, openai_error("Incorrect API key provided: sk-***.", "invalid_api_key")),
    ("openai", 401, {"error": {"message": "Incorrect API key provided: sk-***."}}),
    ("openai", 401, openai_error("Your account has been deactivated.", "account_deactivated")),
    ("groq", 401, openai_error("Invalid API Key", "invalid_api_key")),
    ("azure", 401, openai_error("Access denied due to invalid subscription key or wrong API endpoint.", "401")),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key")),
    ("gemini", 400, google("API_KEY_INVALID")),
    ("gemini", 403, google("CONSUMER_SUSPENDED", 403)),
    ("gemini", 400, [google("API_KEY_EXPIRED")]),
    ("telegram", 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}),
    ("telegram", 404, {"ok": False, "error_code": 404, "description": "Not Found"}),
    ("github", 401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"}),
    ("slack", 200, {"ok": False, "error": "invalid_auth"}),
    ("slack", 200, {"ok": False, "error": "token_revoked"}),
    ("discord", 401, {"message": "401: Unauthorized", "code": 0}),
    ("shopify", 401, {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}),
]
UNCERTAIN = [
    ("openai", 401, openai_error("No such organization: org-x.", "invalid_organization")),
    ("openai", 401, openai_error("You have insufficient permissions for this operation.", None)),
    ("openai", 403, openai_error("Project does not have access to model gpt-4o", "model_not_found")),
    ("anthropic", 403, anthropic("permission_error", "Your API key does not have permission.")),
    ("gemini", 403, google("API_KEY_SERVICE_BLOCKED", 403)),
    ("github", 403, {"message": "Resource not accessible by personal access token"}),
    *((dialect, 401, None) for dialect in DIALECTS if dialect != "telegram"),
]


@pytest.mark.parametrize(("dialect", "status", "body"), CERTAIN)
def test_a_named_credential_is_a_certain_refusal(dialect, status, body):
    outcome = read(dialect, status, {}, body)
    assert (outcome.category, outcome.scope, outcome.certain) == ("auth", "account", True)


@pytest.mark.parametrize(("dialect", "status", "body"), UNCERTAIN)
def test_what_may_be_about_the_request_is_not_certain(dialect, status, body):
    outcome = read(dialect, status, {}, body)
    assert (outcome.category, outcome.certain) == ("auth", False)


@pytest.mark.parametrize(
    ("dialect", "headers", "resource"),
    [
        ("openai", {"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "4"}, ""),
        ("groq", {"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "4"}, ""),
        ("azure", {"x-ratelimit-remaining-requests": "4"}, ""),
        ("anthropic", {"anthropic-ratelimit-requests-remaining": "4"}, ""),
        ("github", {"x-ratelimit-remaining": "4", "x-ratelimit-resource": "search"}, "search"),
        ("github", {"x-ratelimit-remaining": "4", "x-ratelimit-resource": "graphql"}, "graphql"),
        ("github", {"x-ratelimit-remaining": "4"}, None),
        ("generic", {"x-ratelimit-remaining": "4"}, None),
        ("ietf", {"RateLimit": '"default";r=50;t=30'}, None),
    ],
)
def test_a_learned_quota_names_its_resource(dialect, headers, resource):
    outcome = read(dialect, 200, headers)
    assert outcome.learned and outcome.resource == resource
