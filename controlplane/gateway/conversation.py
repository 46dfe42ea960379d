"""The key of a conversation whose caller gives none: a hash of the beginning of its prompt.

Providers cache prompts by their beginning, per account. The calls of a conversation repeat it up to the first message
of its user, so they are kept on one account, while conversations that only share a system prompt are spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

_BEFORE = ("model", "system", "instructions", "systemInstruction", "system_instruction", "tools")
_MESSAGES = ("messages", "contents", "input")
_LEFT_OUT = frozenset({"cache_control", "id", "call_id"})
"""Members that differ from call to call of one conversation: marks of what is to be cached, and names."""
_USERS = ("user", None)
FIRST = 1024
"""Characters of a prompt that is no list of messages."""


def prefix_of(document: Mapping[str, Any] | None) -> str:
    """A digest of the prompt's beginning; empty for a body without a prompt."""
    if document is None:
        return ""
    beginning = _beginning(document)
    if beginning is None:
        return ""
    found = blake2b(digest_size=16)
    _feed(found, [document.get(name) for name in _BEFORE])
    _feed(found, beginning)
    return found.hexdigest()


def _beginning(document: Mapping[str, Any]) -> Any:
    """The messages up to the first one of the user, or the beginning of a prompt; None where there is neither."""
    for name in _MESSAGES:
        messages = document.get(name)
        if isinstance(messages, list) and messages:
            for place, message in enumerate(messages):
                if isinstance(message, Mapping) and message.get("role") in _USERS:
                    return messages[: place + 1]
            return messages[:1]
        if isinstance(messages, str) and messages:
            return messages[:FIRST]
    prompt = document.get("prompt")
    return prompt[:FIRST] if isinstance(prompt, str) and prompt else None


def _feed(found: Any, value: Any) -> None:
    """Feed the text of a value: content that is written as a string, and as a list of one part, is the same."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            found.update(item.encode("utf-8", "surrogatepass") + b"\x00")
        elif isinstance(item, Mapping):
            rest += [
                member for name, member in reversed(list(item.items())) if name not in _LEFT_OUT and name != "type"
            ]
        elif isinstance(item, list):
            rest += reversed(item)
