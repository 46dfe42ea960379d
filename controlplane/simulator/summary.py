"""Answers that depend on nothing but the prompt."""

from __future__ import annotations

import re
from typing import Any

_SENTENCE = re.compile(r"[^.!?\n]{12,}[.!?]?")
_WORD = re.compile(r"\S+")


def texts(messages: Any) -> list[str]:
    """Every piece of text in `messages` (strings, or lists of parts with `text`), in order; anything else is skipped."""
    found: list[str] = []
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list):
            found += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return found


def tokens(text: str) -> int:
    """Estimated tokens of a text: a quarter of its characters, at least 1."""
    return max(1, (len(text) + 3) // 4)


def summarise(prompt: str, max_tokens: int) -> str:
    """The prompt's longest sentence, cut to `max_tokens` (of four characters each, as `tokens` counts)."""
    sentences = _SENTENCE.findall(prompt) or [prompt]
    words: list[str] = []
    room = max_tokens * 4
    for word in _WORD.findall(max(sentences, key=len)):
        room -= len(word) + 1
        if room < 0:
            break
        words.append(word)
    return " ".join(words) or "-"
