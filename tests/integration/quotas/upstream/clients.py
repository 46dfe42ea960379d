"""What HTTP clients return."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Answer:
    """What any HTTP client's answer has."""

    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


@dataclass
class Object:
    """What a client's SDK returns: no HTTP answer, though it has a `status`."""

    status: object
