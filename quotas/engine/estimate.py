"""How many tokens a call will use, before it is made: a pure function of its body.

The prompt's characters divided by four, and the output limit that the body names, else a default. An estimate is
reserved, and corrected by the actual use when the call is settled; it need not be exact, but it must not be nothing.
https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil
from typing import Any

from quotas.engine.costs import MAX_COST

CHARACTERS = 4
"""Characters of a prompt to a token."""
DEFAULT_OUTPUT = 512
MAX_TEXT = 1024 * 1024
"""Characters of a body that are parsed."""
COUNTING_DIALECTS = frozenset({"openai", "azure", "anthropic", "gemini", "groq", "mistral"})
"""Dialects whose providers limit tokens, whether or not a pool states such a limit."""

_PROMPTS = (
    "messages", "prompt", "input", "system", "instructions", "contents", "systemInstruction", "system_instruction",
    "tools", "functions", "suffix", "texts", "query", "documents",
)  # fmt: skip
_OUTPUTS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_NO_OUTPUT = ("/embeddings", "/moderations", "/count_tokens", ":countTokens", ":embedContent", ":batchEmbedContents")
_NOT_TEXT = frozenset(
    {
        "role", "type", "id", "cache_control", "tool_call_id", "tool_use_id", "call_id", "data", "url", "image_url",
        "file_data", "file_id", "fileData", "inline_data", "inlineData", "input_audio", "source", "b64_json",
        "thoughtSignature", "signature", "encrypted_content",
    }
)  # fmt: skip
"""Members without text of a prompt: names, and media, whose bytes are not counted as characters."""


def tokens_of(body: object, *, path: str = "", default_output: int = DEFAULT_OUTPUT) -> int | None:
    """The tokens that a call with this body is estimated to use; None if the body has no prompt.

    `body`: parsed JSON, or its text; `path`: embeddings and the like produce no output; `default_output`: for bodies
    that name no limit of their output. Never raises.
    """
    parts = parts_of(body, path=path, default_output=default_output)
    return None if parts is None else sum(parts)


def parts_of(body: object, *, path: str = "", default_output: int = DEFAULT_OUTPUT) -> tuple[int, int] | None:
    """As `tokens_of`: the tokens of the prompt, and those of the output."""
    parsed = _parsed(body)
    if not isinstance(parsed, Mapping):
        return None
    prompts = [parsed[name] for name in _PROMPTS if parsed.get(name) is not None]
    if not prompts:
        return None
    prompt = min(MAX_COST, ceil(_characters(prompts) / CHARACTERS))
    return prompt, min(MAX_COST - prompt, _output(parsed, path, default_output))


def _parsed(body: object) -> object:
    if isinstance(body, bytes):
        body = body[: MAX_TEXT + 1].decode("utf-8", "replace")
    if not isinstance(body, str):
        return body
    if len(body) > MAX_TEXT or body.lstrip()[:1] != "{":
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _characters(prompts: list[Any]) -> int:
    """The characters of all text in `prompts`; a number is a token that is written as one."""
    total, rest = 0, list(prompts)
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, Mapping):
            rest += [member for name, member in value.items() if name not in _NOT_TEXT]
        elif isinstance(value, list | tuple):
            rest += value
        elif isinstance(value, int) and not isinstance(value, bool):
            total += CHARACTERS
    return total


def _output(body: Mapping[str, Any], path: str, default: int) -> int:
    if path.partition("?")[0].endswith(_NO_OUTPUT):
        return 0
    settings = body.get("generationConfig", body.get("generation_config"))
    stated = [body.get(name) for name in _OUTPUTS]
    if isinstance(settings, Mapping):
        stated += [settings.get("maxOutputTokens"), settings.get("max_output_tokens")]
    limits = [limit for limit in stated if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    choices = body.get("n")
    times = choices if isinstance(choices, int) and 1 <= choices <= 128 else 1
    return max(limits, default=default) * times
