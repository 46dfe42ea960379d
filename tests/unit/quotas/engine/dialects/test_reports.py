"""Answers as users of gateways and clients have reported them, each with what it means for the account.

The rows are one kind each: refusals in texts, inside streams, with another one's status, in another one's encoding.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from quotas.engine.dialects import read

NOW = 1_760_000_000.0
"""Thu, 09 Oct 2025 08:53:20 GMT."""
ROWS: list[Any] = []


def case(
    name: str,
    dialect: str,
    status: int,
    headers: Any,
    body: Any,
    categories: Any,
    wait: float | None = None,
    **more: Any,
) -> None:
    """`wait`: seconds, at least where `least` is given; `more`: other members of the outcome."""
    categories = categories if isinstance(categories, tuple) else (categories,)
    ROWS.append(pytest.param(dialect, status, headers, body, categories, wait, more, id=f"{dialect}: {name}"))


def events(*pairs: Any) -> str:
    return "".join((f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n" for name, data in pairs)


def exhausted(message: str, quota_id: str | None = None, delay: str | None = None) -> dict[str, Any]:
    details: list[Any] = []
    if quota_id:
        metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
        violation = {"quotaMetric": metric, "quotaId": quota_id, "quotaValue": "15"}
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}


# Azure
case(
    "azure 86400 s in text",
    "azure",
    429,
    {},
    {
        "error": {
            "code": "429",
            "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2023-05-15 have exceeded token rate limit of your current AIServices S0 pricing tier. Please retry after 86400 seconds. Please contact Azure support service",
        }
    },
    "rate_limited",
    86400,
)
case(
    "azure peak load",
    "azure",
    429,
    {},
    {
        "error": {
            "message": "The system is currently experiencing high demand and cannot process your request. Your request exceeds the maximum usage size allowed during peak load. Please retry after 20 seconds. For improved latency reliability, consider switching to Provisioned Throughput."
        }
    },
    "rate_limited",
    20,
)
case(
    "Try again in 50 seconds",
    "azure",
    429,
    {},
    {"error": {"code": "429", "message": "Rate limit is exceeded. Try again in 50 seconds."}},
    "rate_limited",
    50,
)
case(
    "azure x-ms-retry-after-ms",
    "azure",
    429,
    {"x-ms-retry-after-ms": "1500"},
    {"error": {"code": "429", "message": "x"}},
    "rate_limited",
    1.5,
)
case(
    "azure APIM statusCode",
    "azure",
    429,
    {"Retry-After": "6"},
    {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 6 seconds."},
    "rate_limited",
    6,
)
case(
    "azure content filter 400",
    "azure",
    400,
    {},
    {"error": {"code": "content_filter", "message": "The response was filtered", "status": 400}},
    "validation",
)
case(
    "azure 403 virtual network/firewall",
    "azure",
    403,
    {},
    {"error": {"code": "403", "message": "Access denied due to Virtual Network/Firewall rules."}},
    "auth",
)
case(
    "azure 401 wrong key",
    "azure",
    401,
    {},
    {
        "error": {
            "code": "401",
            "message": "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.",
        }
    },
    "auth",
)
case(
    "azure 404 DeploymentNotFound",
    "azure",
    404,
    {},
    {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
    "validation",
)
# OpenAI
case(
    "insufficient_quota",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    },
    "quota_exhausted",
)
case(
    "openai RPD text 8m38.4s",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "Rate limit reached for gpt-4 in organization org-x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            "type": "requests",
            "code": "rate_limit_exceeded",
        }
    },
    "rate_limited",
    432,
    scope="model",
)
case(
    "openai ms text",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29950, Requested 200. Please try again in 300ms. Visit https://platform.openai.com",
            "type": "tokens",
            "code": "rate_limit_exceeded",
        }
    },
    "rate_limited",
    0.3,
)
case(
    "openai server_overloaded 503",
    "openai",
    503,
    {},
    {
        "error": {
            "message": "That model is currently overloaded with other requests.",
            "type": "server_error",
            "code": None,
        }
    },
    "server",
)
case(
    "openai engine_overloaded 429",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "The engine is currently overloaded, please try again later",
            "type": "engine_overloaded_error",
            "code": "engine_overloaded",
        }
    },
    "server",
)
case(
    "responses stream response.failed",
    "openai",
    200,
    {"content-type": "text/event-stream"},
    events(
        ("response.created", {"type": "response.created", "response": {"id": "r"}}),
        (
            "response.failed",
            {
                "type": "response.failed",
                "response": {
                    "id": "r",
                    "status": "failed",
                    "error": {
                        "code": "server_error",
                        "message": "Our servers are currently overloaded. Please try again later.",
                    },
                },
            },
        ),
    ),
    "server",
)
case(
    "responses stream error rate_limit",
    "openai",
    200,
    {"content-type": "text/event-stream"},
    events(
        (
            "error",
            {
                "type": "error",
                "code": "rate_limit_exceeded",
                "message": "Rate limit reached for gpt-5. Please try again in 6s.",
            },
        )
    ),
    "rate_limited",
    6,
)
case(
    "responses stream error insufficient_quota",
    "openai",
    200,
    {"content-type": "text/event-stream"},
    events(
        (
            "error",
            {
                "type": "error",
                "error": {
                    "type": "insufficient_quota",
                    "code": "insufficient_quota",
                    "message": "You exceeded your current quota",
                },
            },
        )
    ),
    "quota_exhausted",
)
case(
    "chat stream error chunk",
    "openai",
    200,
    {"content-type": "text/event-stream"},
    'data: {"id":"x","choices":[{"delta":{"content":"a"}}]}\n\ndata: {"error":{"message":"The server had an error while processing your request","type":"server_error"}}\n\ndata: [DONE]\n\n',
    "server",
)
case(
    "openai context_length 400",
    "openai",
    400,
    {},
    {
        "error": {
            "message": "This model's maximum context length is 8192 tokens",
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
        }
    },
    "validation",
)
case(
    "openai 403 unsupported_country",
    "openai",
    403,
    {},
    {
        "error": {
            "code": "unsupported_country_region_territory",
            "message": "Country, region, or territory not supported",
            "param": None,
            "type": "request_forbidden",
        }
    },
    "auth",
    None,
)
case(
    "openai 401 invalid_organization",
    "openai",
    401,
    {},
    {
        "error": {
            "message": "No such organization: org-x.",
            "type": "invalid_request_error",
            "code": "invalid_organization",
        }
    },
    "auth",
    None,
    certain=False,
)
case(
    "openai 404 model_not_found",
    "openai",
    404,
    {},
    {
        "error": {
            "message": "The model `x` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "code": "model_not_found",
        }
    },
    "validation",
)
case(
    "usage in final chunk",
    "openai",
    200,
    {"content-type": "text/event-stream"},
    'data: {"choices":[]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}\n\ndata: [DONE]\n\n',
    "ok",
    None,
    usage={"tokens": 12},
)
case(
    "deepseek 402",
    "openai",
    402,
    {},
    {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
    "quota_exhausted",
)
case(
    "openrouter 402 more credits",
    "openai",
    402,
    {},
    {
        "error": {
            "message": "This request requires more credits, or fewer max_tokens. You requested up to 4096 tokens, but can only afford 1000.",
            "code": 402,
        }
    },
    "quota_exhausted",
)
case(
    "openrouter 429 metadata headers ms",
    "openai",
    429,
    {"date": "Thu, 09 Oct 2025 08:53:20 GMT"},
    {
        "error": {
            "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
            "code": 429,
            "metadata": {
                "headers": {
                    "X-RateLimit-Limit": "50",
                    "X-RateLimit-Remaining": "0",
                    "X-RateLimit-Reset": str(int((NOW + 3600) * 1000)),
                },
                "provider_name": None,
            },
        }
    },
    "rate_limited",
    3600,
)
case(
    "openrouter 200 error in body",
    "openai",
    200,
    {},
    {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "rate limited"}}},
    "rate_limited",
)
case(
    "openrouter 502 provider in 200",
    "openai",
    200,
    {},
    {"error": {"message": "Provider returned error", "code": 502}},
    "server",
)
case(
    "openrouter 403 moderation",
    "openai",
    403,
    {},
    {
        "error": {
            "message": "openai/gpt requires moderation. Your input was flagged",
            "code": 403,
            "metadata": {"reasons": ["x"], "flagged_input": "x"},
        }
    },
    "validation",
)
# Anthropic
case(
    "overloaded in SSE",
    "anthropic",
    200,
    {"content-type": "text/event-stream"},
    events(("error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
    "server",
)
case(
    "anthropic midstream overloaded after content w/ usage",
    "anthropic",
    200,
    {"content-type": "text/event-stream"},
    events(
        ("message_start", {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}),
        ("content_block_delta", {"type": "content_block_delta", "delta": {"text": "x"}}),
        ("error", {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}),
    ),
    "server",
    None,
    usage={"tokens": 11},
)
case(
    "anthropic 529",
    "anthropic",
    529,
    {},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "server",
)
case(
    "anthropic rate_limit_error SSE",
    "anthropic",
    200,
    {"content-type": "text/event-stream"},
    events(
        (
            "error",
            {
                "type": "error",
                "error": {
                    "type": "rate_limit_error",
                    "message": "This request would exceed your account's rate limit. Please try again later.",
                },
            },
        )
    ),
    "rate_limited",
)
case(
    "anthropic api_error SSE",
    "anthropic",
    200,
    {"content-type": "text/event-stream"},
    events(("error", {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}})),
    "server",
)
case(
    "anthropic authentication SSE",
    "anthropic",
    401,
    {},
    {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
    "auth",
    None,
    certain=True,
)
case(
    "anthropic 403 permission",
    "anthropic",
    403,
    {},
    {
        "type": "error",
        "error": {
            "type": "permission_error",
            "message": "Your API key does not have permission to use the specified resource",
        },
    },
    "auth",
    None,
    certain=False,
)
case(
    "anthropic 413",
    "anthropic",
    413,
    {},
    {
        "type": "error",
        "error": {"type": "request_too_large", "message": "Request exceeds the maximum allowed number of bytes."},
    },
    "validation",
)
case(
    "anthropic 429 long context",
    "anthropic",
    429,
    {},
    {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "Extra usage is required for long context requests."},
    },
    "validation",
)
case(
    "anthropic usage limit text",
    "anthropic",
    400,
    {},
    {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "You have reached your specified API usage limits. You will regain access on 2026-01-01 at 00:00 UTC.",
        },
    },
    "quota_exhausted",
    31 * 86400,
)
case("bedrock SSE exception body", "generic", 200, {"content-type": "application/json"}, {"message": "ok"}, "ok")
# Gemini
case(
    "per minute 38s",
    "gemini",
    429,
    {},
    exhausted(
        "You exceeded your current quota, please check your plan and billing details. Please retry in 38.922534355s.",
        "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        "38s",
    ),
    "rate_limited",
    38,
    scope="model",
)
case("gemini fractional 9 digits", "gemini", 429, {}, exhausted("x", None, "45.837906927s"), "rate_limited", 45.84)
case(
    "gemini retry in text only",
    "gemini",
    429,
    {},
    exhausted("You exceeded your current quota. Please retry in 38.922534355s."),
    "rate_limited",
    38.92,
)
case(
    "per day",
    "gemini",
    429,
    {},
    exhausted("You exceeded your current quota", "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "17s"),
    "quota_exhausted",
    None,
    least=3000,
)
case(
    "gemini-cli quota_limit PerDay in ErrorInfo",
    "gemini",
    429,
    {},
    {
        "error": {
            "code": 429,
            "message": "Quota exceeded for quota metric 'Gemini 2.5 Pro Requests' and limit 'Gemini 2.5 Pro Requests per day per user per tier' of service 'cloudcode-pa.googleapis.com'",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "RATE_LIMIT_EXCEEDED",
                    "domain": "googleapis.com",
                    "metadata": {
                        "quota_metric": "cloudcode-pa.googleapis.com/gemini_2_5_pro_requests",
                        "quota_limit": "Gemini25ProRequestsPerDay",
                    },
                }
            ],
        }
    },
    "quota_exhausted",
    None,
    least=3000,
)
case(
    "gke gemini sticky no details",
    "gemini",
    429,
    {},
    {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.Help", "links": []}],
        }
    },
    ("rate_limited", "quota_exhausted"),
)
case(
    "gemini stream error list",
    "gemini",
    200,
    {"content-type": "application/json"},
    [
        {"candidates": []},
        {
            "error": {
                "code": 503,
                "message": "The model is overloaded. Please try again later.",
                "status": "UNAVAILABLE",
            }
        },
    ],
    "server",
)
case(
    "gemini sse error",
    "gemini",
    200,
    {"content-type": "text/event-stream"},
    'data: {"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}\n\n',
    "rate_limited",
)
case(
    "gemini 400 API key invalid",
    "gemini",
    400,
    {},
    {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                }
            ],
        }
    },
    "auth",
    None,
    certain=True,
)
case(
    "gemini 400 expired",
    "gemini",
    400,
    {},
    {
        "error": {
            "code": 400,
            "message": "API key expired. Please renew the API key.",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
        }
    },
    "auth",
    None,
    certain=True,
)
case(
    "gemini 400 location",
    "gemini",
    400,
    {},
    {
        "error": {
            "code": 400,
            "message": "User location is not supported for the API use.",
            "status": "FAILED_PRECONDITION",
        }
    },
    ("validation", "auth"),
)
case(
    "gemini 403 SERVICE_DISABLED",
    "gemini",
    403,
    {},
    {
        "error": {
            "code": 403,
            "message": "Generative Language API has not been used in project 1 before or it is disabled.",
            "status": "PERMISSION_DENIED",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "SERVICE_DISABLED",
                    "domain": "googleapis.com",
                }
            ],
        }
    },
    "auth",
)
case(
    "gemini openai-compat list error",
    "openai",
    429,
    {},
    [
        {
            "error": {
                "code": 429,
                "message": "Quota exceeded",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "21s"}],
            }
        }
    ],
    "rate_limited",
    21,
)
case(
    "gemini thinking usage",
    "gemini",
    200,
    {},
    {
        "candidates": [],
        "usageMetadata": {
            "promptTokenCount": 5,
            "candidatesTokenCount": 6,
            "thoughtsTokenCount": 9,
            "totalTokenCount": 20,
        },
    },
    "ok",
    None,
    usage={"tokens": 20},
)
# Bedrock
for d in ("generic", "anthropic", "openai"):
    case(
        f"bedrock throttle header {d}",
        d,
        429,
        {"x-amzn-errortype": "ThrottlingException:http://internal.amazon.com/"},
        {"message": "Too many requests, please wait before trying again."},
        "rate_limited",
    )
    case(
        f"bedrock 400 ThrottlingException {d}",
        d,
        400,
        {"x-amzn-ErrorType": "ThrottlingException"},
        {"message": "Too many tokens, please wait before trying again."},
        "rate_limited",
    )
    case(
        f"bedrock __type {d}",
        d,
        400,
        {},
        {"__type": "com.amazon.coral.availability#ThrottlingException", "message": "Rate exceeded"},
        "rate_limited",
    )
    case(
        f"bedrock daily tokens {d}",
        d,
        429,
        {"x-amzn-errortype": "ThrottlingException"},
        {"message": "Too many tokens per day, please wait before trying again."},
        "quota_exhausted",
    )
    case(
        f"bedrock ModelNotReady {d}",
        d,
        429,
        {"x-amzn-errortype": "ModelNotReadyException"},
        {"message": "Model is not ready for inference. Please try again."},
        ("server", "rate_limited"),
    )
    case(
        f"bedrock ServiceQuotaExceeded {d}",
        d,
        400,
        {"x-amzn-errortype": "ServiceQuotaExceededException"},
        {"message": "Your request exceeds the service quota for your account."},
        ("quota_exhausted", "rate_limited"),
    )
    case(
        f"bedrock AccessDenied {d}",
        d,
        403,
        {"x-amzn-errortype": "AccessDeniedException"},
        {"message": "You don't have access to the model with the specified model ID."},
        "auth",
        None,
        certain=False,
    )
    case(
        f"bedrock ExpiredToken {d}",
        d,
        403,
        {"x-amzn-errortype": "ExpiredTokenException"},
        {"message": "The security token included in the request is expired"},
        "auth",
        None,
        certain=True,
    )
case(
    "aws x-amz-retry-after ms",
    "generic",
    503,
    {"x-amz-retry-after": "2500"},
    {"code": "SlowDown"},
    ("server", "rate_limited"),
    2.5,
)
# GitHub
case(
    "secondary, remaining>0, reset",
    "github",
    403,
    {
        "x-ratelimit-limit": "30",
        "x-ratelimit-remaining": "14",
        "x-ratelimit-reset": str(int(NOW + 45)),
        "x-ratelimit-resource": "search",
    },
    {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."},
    "rate_limited",
    60,
)
case(
    "code search secondary no retry-after",
    "github",
    403,
    {},
    {
        "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. If you reach out to GitHub Support"
    },
    "rate_limited",
    60,
)
case(
    "github secondary 429",
    "github",
    429,
    {"retry-after": "60"},
    {"message": "You have exceeded a secondary rate limit"},
    "rate_limited",
    60,
)
case(
    "403 integration",
    "github",
    403,
    {"x-ratelimit-remaining": "4000", "x-ratelimit-limit": "5000"},
    {"message": "Resource not accessible by integration"},
    "auth",
    None,
    certain=False,
)
case(
    "github 403 SAML",
    "github",
    403,
    {"x-github-sso": "required"},
    {"message": "Resource protected by organization SAML enforcement."},
    "auth",
    None,
    certain=False,
)
case(
    "github 404 hides permission",
    "github",
    404,
    {"x-ratelimit-remaining": "10", "x-ratelimit-limit": "5000"},
    {"message": "Not Found"},
    "validation",
)
case(
    "github 422 abuse creation",
    "github",
    422,
    {},
    {"message": "Validation Failed", "errors": [{"message": "was submitted too quickly", "resource": "Issue"}]},
    ("rate_limited", "validation"),
)
case("github 502 unicorn html", "github", 502, {}, "<html>Unicorn!</html>", "server")
case(
    "github graphql RATE_LIMITED 200",
    "github",
    200,
    {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-limit": "5000",
        "x-ratelimit-reset": str(int(NOW + 900)),
        "x-ratelimit-resource": "graphql",
    },
    {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1."}]},
    "rate_limited",
    900,
)
case(
    "github graphql secondary 200",
    "github",
    200,
    {},
    {"errors": [{"message": "You have exceeded a secondary rate limit."}]},
    "rate_limited",
    60,
)
case(
    "github 304",
    "github",
    304,
    {"x-ratelimit-remaining": "0", "x-ratelimit-limit": "60", "x-ratelimit-reset": str(int(NOW + 100))},
    "",
    "ok",
)
case(
    "github suspended 403",
    "github",
    403,
    {},
    {"message": "Sorry. Your account was suspended"},
    "auth",
    None,
    certain=True,
)
case("github 401 requires auth", "github", 401, {}, {"message": "Requires authentication"}, "auth", None, certain=False)
# Telegram
case(
    "flood text only",
    "telegram",
    429,
    {},
    {"ok": False, "error_code": 429, "description": "Flood control exceeded. Retry in 35 seconds"},
    "rate_limited",
    35,
)
case(
    "retry after 234",
    "telegram",
    429,
    {},
    {"ok": False, "error_code": 429, "description": "Too Many Requests: retry after 234"},
    "rate_limited",
    234,
)
case(
    "migrate_to_chat_id",
    "telegram",
    400,
    {},
    {
        "ok": False,
        "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1001},
    },
    "validation",
)
case(
    "telegram 409 conflict",
    "telegram",
    409,
    {},
    {"ok": False, "error_code": 409, "description": "Conflict: terminated by other getUpdates request"},
    "validation",
)
case("telegram 502 html", "telegram", 502, {}, "<html><title>502 Bad Gateway</title></html>", "server")
case(
    "telegram 401 unauthorized",
    "telegram",
    401,
    {},
    {"ok": False, "error_code": 401, "description": "Unauthorized"},
    "auth",
    None,
    certain=True,
)
case(
    "telegram 403 kicked",
    "telegram",
    403,
    {},
    {"ok": False, "error_code": 403, "description": "Forbidden: bot was kicked from the supergroup chat"},
    "validation",
)
case(
    "telegram 404 method",
    "telegram",
    404,
    {},
    {"ok": False, "error_code": 404, "description": "Not Found: method not found"},
    "validation",
)
case(
    "telegram 420 FLOOD_WAIT",
    "telegram",
    420,
    {},
    {"ok": False, "error_code": 420, "description": "FLOOD_WAIT_23"},
    "rate_limited",
    23,
)
# Discord
case(
    "cloudflare seconds header",
    "discord",
    429,
    {"Retry-After": "1337"},
    "<html>Error 1015 You are being rate limited</html>",
    "rate_limited",
    1337,
    scope="account",
)
case(
    "blocked code 0",
    "discord",
    429,
    {},
    {
        "code": 0,
        "message": "You are being blocked from accessing our API temporarily due to exceeding our rate limits frequently. Please read our docs at https://discord.com/developers/docs/topics/rate-limits",
    },
    "rate_limited",
    None,
    scope="account",
)
case(
    "discord global",
    "discord",
    429,
    {"Retry-After": "65", "X-RateLimit-Global": "true"},
    {"message": "You are being rate limited.", "retry_after": 64.57, "global": True},
    "rate_limited",
    64.57,
    scope="account",
)
case(
    "discord shared",
    "discord",
    429,
    {"X-RateLimit-Scope": "shared", "Retry-After": "2", "X-RateLimit-Remaining": "9", "X-RateLimit-Limit": "10"},
    {"message": "x", "retry_after": 1.3, "global": False},
    "rate_limited",
    1.3,
    scope="key",
)
case(
    "discord 40062 service resource",
    "discord",
    429,
    {},
    {"message": "Service resource is being rate limited.", "code": 40062, "retry_after": 3.0},
    "rate_limited",
    3,
)
case(
    "discord 401 in 403? missing access", "discord", 403, {}, {"message": "Missing Access", "code": 50001}, "validation"
)
case("discord 1015 no header", "discord", 429, {}, "error code: 1015", "rate_limited", None, scope="account")
# Shopify
case(
    "Shopify THROTTLED 200",
    "shopify",
    200,
    {},
    {
        "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
        "extensions": {
            "cost": {
                "requestedQueryCost": 502,
                "actualQueryCost": None,
                "throttleStatus": {"maximumAvailable": 1000.0, "currentlyAvailable": 2, "restoreRate": 50.0},
            }
        },
    },
    "rate_limited",
    10,
)
case(
    "no throttleStatus",
    "shopify",
    200,
    {},
    {"data": {}, "extensions": {"cost": {"requestedQueryCost": 1, "actualQueryCost": 1}}},
    "ok",
)
case(
    "shopify rest 429 2.0",
    "shopify",
    429,
    {"Retry-After": "2.0", "X-Shopify-Shop-Api-Call-Limit": "40/40"},
    {"errors": "Exceeded 2 calls per second for api client. Reduce request rates to resume uninterrupted service."},
    "rate_limited",
    2,
)
case(
    "shopify MAX_COST",
    "shopify",
    200,
    {},
    {
        "errors": [
            {
                "message": "Query cost is 2003, which exceeds the single query max cost limit (1000).",
                "extensions": {"code": "MAX_COST_EXCEEDED", "cost": 2003, "maxCost": 1000},
            }
        ]
    },
    "validation",
)
case("shopify 430", "shopify", 430, {}, {"errors": "Shop request rejected"}, ("rate_limited", "validation"))
case("shopify 423 locked", "shopify", 423, {}, {"errors": "This shop is unavailable"}, ("auth", "validation", "server"))
# Slack
case(
    "slack 200 ratelimited",
    "slack",
    200,
    {"Retry-After": "30"},
    {"ok": False, "error": "ratelimited"},
    "rate_limited",
    30,
)
case("slack rate_limited", "slack", 200, {}, {"ok": False, "error": "rate_limited"}, "rate_limited")
case("slack webhook plain", "slack", 429, {"Retry-After": "1"}, "rate_limited", "rate_limited", 1)
case(
    "slack message_limit_exceeded",
    "slack",
    200,
    {},
    {"ok": False, "error": "message_limit_exceeded"},
    ("quota_exhausted", "rate_limited", "validation"),
)
case("slack fatal_error", "slack", 200, {}, {"ok": False, "error": "internal_error"}, "server")
case("slack channel_not_found", "slack", 200, {}, {"ok": False, "error": "channel_not_found"}, "validation")
# Stripe
case(
    "stripe lock_timeout",
    "generic",
    429,
    {"Stripe-Should-Retry": "true"},
    {
        "error": {
            "code": "lock_timeout",
            "type": "invalid_request_error",
            "message": "This object cannot be accessed right now because another API request or Stripe process is currently accessing it.",
        }
    },
    ("server", "rate_limited"),
)
case(
    "stripe rate_limit",
    "generic",
    429,
    {"Stripe-Rate-Limited-Reason": "global-rate"},
    {"error": {"code": "rate_limit", "type": "invalid_request_error", "message": "Request rate limit exceeded."}},
    "rate_limited",
)
case(
    "stripe card 402",
    "generic",
    402,
    {},
    {"error": {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}},
    "validation",
)
# Notion/Linear/Twilio/X/Jira
case(
    "notion rate_limited",
    "generic",
    429,
    {"Retry-After": "12"},
    {"object": "error", "status": 429, "code": "rate_limited", "message": "You have been rate limited."},
    "rate_limited",
    12,
)
case("notion 529", "generic", 529, {"Retry-After": "7"}, {"object": "error", "code": "service_overload"}, "server", 7)
case("notion 409 conflict", "generic", 409, {}, {"object": "error", "code": "conflict_error"}, "validation")
case(
    "linear 400 RATELIMITED",
    "generic",
    400,
    {
        "X-RateLimit-Requests-Remaining": "0",
        "X-RateLimit-Requests-Reset": str(int((NOW + 120) * 1000)),
        "X-RateLimit-Requests-Limit": "1500",
    },
    {"errors": [{"message": "Rate limit exceeded", "extensions": {"code": "RATELIMITED"}}]},
    "rate_limited",
    120,
)
case(
    "twilio 20429",
    "generic",
    429,
    {},
    {
        "code": 20429,
        "message": "Too Many Requests",
        "more_info": "https://www.twilio.com/docs/errors/20429",
        "status": 429,
    },
    "rate_limited",
)
case(
    "twilio 14107/63038 daily",
    "generic",
    429,
    {},
    {"code": 63038, "message": "Account exceeded the daily messages limit", "status": 429},
    ("quota_exhausted", "rate_limited"),
)
case(
    "x code 88",
    "generic",
    429,
    {"x-rate-limit-limit": "900", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(int(NOW + 840))},
    {"errors": [{"code": 88, "message": "Rate limit exceeded"}]},
    "rate_limited",
    840,
)
case(
    "jira rfc3339 reset",
    "generic",
    429,
    {
        "X-RateLimit-Reset": "2025-10-09T08:58:20Z",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Limit": "10",
        "Date": "Thu, 09 Oct 2025 08:53:20 GMT",
    },
    "",
    "rate_limited",
    300,
)
case(
    "gitlab epoch under IETF",
    "ietf",
    429,
    {"RateLimit-Limit": "10", "RateLimit-Remaining": "0", "RateLimit-Reset": str(int(NOW + 33))},
    "",
    "rate_limited",
    33,
)
case(
    "hubspot daily",
    "generic",
    429,
    {},
    {
        "status": "error",
        "message": "You have reached your daily limit.",
        "errorType": "RATE_LIMIT",
        "policyName": "DAILY",
    },
    ("quota_exhausted", "rate_limited"),
)
case(
    "hubspot ten secondly",
    "generic",
    429,
    {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000", "X-HubSpot-RateLimit-Remaining": "0"},
    {"status": "error", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"},
    "rate_limited",
)
case(
    "salesforce 403 REQUEST_LIMIT_EXCEEDED",
    "generic",
    403,
    {},
    [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}],
    ("quota_exhausted", "rate_limited"),
)
case(
    "google sheets 403 userRateLimit",
    "generic",
    403,
    {},
    {
        "error": {
            "code": 403,
            "errors": [
                {"domain": "usageLimits", "reason": "userRateLimitExceeded", "message": "User Rate Limit Exceeded"}
            ],
            "message": "User Rate Limit Exceeded",
        }
    },
    "rate_limited",
)
case(
    "google youtube 403 quotaExceeded",
    "generic",
    403,
    {},
    {
        "error": {
            "code": 403,
            "errors": [{"domain": "youtube.quota", "reason": "quotaExceeded"}],
            "message": "The request cannot be completed because you have exceeded your quota.",
        }
    },
    "quota_exhausted",
)
case(
    "facebook code 4",
    "generic",
    400,
    {"x-app-usage": '{"call_count":100,"total_time":25,"total_cputime":25}'},
    {"error": {"message": "(#4) Application request limit reached", "type": "OAuthException", "code": 4}},
    "rate_limited",
)
case(
    "facebook 190 token",
    "generic",
    400,
    {},
    {"error": {"message": "Error validating access token: Session has expired", "type": "OAuthException", "code": 190}},
    "auth",
)
case("mailgun 420", "generic", 420, {}, "", "rate_limited")
case("cloudflare html 1015", "generic", 429, {"retry-after": "33"}, "<html>error 1015</html>", "rate_limited", 33)
case("nginx 503 limit_req", "generic", 503, {}, "<html>503 Service Temporarily Unavailable</html>", "server")
case(
    "retry-after http date w/o Date header",
    "generic",
    429,
    {"Retry-After": "Thu, 09 Oct 2025 08:54:20 GMT"},
    "",
    "rate_limited",
    60,
)
case("retry-after '60 seconds'", "generic", 429, {"Retry-After": "60 seconds"}, "", "rate_limited", 60)
case("retry-after '60s'", "generic", 429, {"Retry-After": "60s"}, "", "rate_limited", 60)
case("retry-after quoted", "generic", 429, {"Retry-After": '"30"'}, "", "rate_limited", 30)
# groq/mistral/cohere/together/xai
case(
    "groq 413 too large",
    "groq",
    413,
    {},
    {
        "error": {
            "message": "Request too large for model `x` in organization `o` on tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your message size and try again.",
            "type": "tokens",
            "code": "rate_limit_exceeded",
        }
    },
    "validation",
)
case(
    "groq TPD try again in 1h23m45.6s",
    "groq",
    429,
    {},
    {
        "error": {
            "message": "Rate limit reached for model `x` on tokens per day (TPD): Limit 500000, Used 499000, Requested 5000. Please try again in 11m31.2s.",
            "type": "tokens",
            "code": "rate_limit_exceeded",
        }
    },
    "rate_limited",
    691.2,
)
case(
    "groq over capacity 498",
    "groq",
    498,
    {},
    {"error": {"message": "Flex tier capacity exceeded", "type": "capacity", "code": "capacity_exceeded"}},
    "server",
)
case(
    "mistral 429 3505 capacity",
    "mistral",
    429,
    {},
    {
        "object": "error",
        "message": "Service tier capacity exceeded for this model.",
        "type": "service_tier_capacity_exceeded",
        "param": None,
        "code": "3505",
    },
    ("server", "rate_limited"),
)
case(
    "mistral 429 1300",
    "mistral",
    429,
    {},
    {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
    "rate_limited",
)
case(
    "cohere trial",
    "openai",
    429,
    {},
    {
        "message": "You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the Trial key for free or upgrade"
    },
    "quota_exhausted",
)
case(
    "xai 403 no credits",
    "openai",
    403,
    {},
    {
        "code": "The caller does not have permission to execute the specified operation",
        "error": "Your newly created teams doesn't have any credits yet. You can purchase credits on https://console.x.ai/team",
    },
    "quota_exhausted",
)
case(
    "zhipu 1302 concurrency",
    "openai",
    429,
    {},
    {"error": {"code": "1302", "message": "您当前使用该API的并发数过高，请降低并发，或联系客服增加限额。"}},
    "rate_limited",
)
case(
    "zhipu 1113 balance",
    "openai",
    429,
    {},
    {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试。"}},
    "quota_exhausted",
)
case(
    "moonshot engine_overloaded",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "The engine is currently overloaded, please try again later",
            "type": "engine_overloaded_error",
        }
    },
    "server",
)
case(
    "moonshot max concurrency",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "Your account xxx<ak-xx> request reached max organization concurrency: 1, please try again after 1 seconds",
            "type": "rate_limit_reached_error",
        }
    },
    "rate_limited",
    1,
)
case(
    "dashscope quota",
    "openai",
    429,
    {},
    {
        "error": {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        }
    },
    "quota_exhausted",
)
case(
    "volc AccountOverdue 403",
    "openai",
    403,
    {},
    {
        "error": {
            "code": "AccountOverdueError",
            "message": "The request failed because your account has an overdue balance.",
        }
    },
    "quota_exhausted",
)
case(
    "hf 503 loading",
    "openai",
    503,
    {},
    {"error": "Model x is currently loading", "estimated_time": 20.5},
    "server",
    20.5,
)
case(
    "replicate 429 detail",
    "generic",
    429,
    {},
    {
        "title": "Request was throttled",
        "detail": "Request was throttled. Your rate limit resets in ~30s.",
        "status": 429,
    },
    "rate_limited",
    30,
)
case(
    "elevenlabs quota_exceeded 401",
    "generic",
    401,
    {},
    {
        "detail": {
            "status": "quota_exceeded",
            "message": "This request exceeds your quota. You have 10 credits remaining, while 50 credits are required.",
        }
    },
    "quota_exhausted",
)
case(
    "elevenlabs too_many_concurrent",
    "generic",
    429,
    {},
    {"detail": {"status": "too_many_concurrent_requests", "message": "Too many concurrent requests."}},
    "rate_limited",
)
case(
    "elevenlabs system_busy",
    "generic",
    429,
    {},
    {"detail": {"status": "system_busy", "message": "Our services are experiencing high traffic"}},
    ("server", "rate_limited"),
)


@pytest.mark.parametrize(("dialect", "status", "headers", "body", "categories", "wait", "more"), ROWS)
def test_an_answer_as_it_was_reported(
    dialect: str, status: int, headers: Any, body: Any, categories: tuple[str, ...], wait: float | None, more: Any
) -> None:
    sent = body if isinstance(body, str) else json.dumps(body).encode()
    outcome = read(dialect, status, headers, sent, now=NOW)
    assert outcome.category in categories
    if wait is not None:
        assert outcome.retry_after == pytest.approx(max(wait, 0.0), rel=0.02, abs=0.01)
    least = more.get("least")
    if least is not None:
        assert outcome.retry_after is not None and outcome.retry_after >= least
    wanted = {name: value for name, value in more.items() if name != "least"}
    assert {name: getattr(outcome, name) for name in wanted} == wanted
