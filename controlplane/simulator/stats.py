"""What the provider has seen: independent evidence of how often a job ran."""

from __future__ import annotations

from collections import Counter
from typing import Any

from controlplane.simulator.limits import KeyUse


class Stats:
    """Counters since the start, or since the last `DELETE /_stats`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        self.requests = 0
        self.refused = 0
        self.faulted = 0
        self.succeeded = 0
        self.duplicates = 0
        self.statuses: Counter[int] = Counter()
        self._request_ids: Counter[str] = Counter()
        self._answered: set[str] = set()

    def arrived(self, request_id: str) -> None:
        """Count a request, and its request id."""
        self.requests += 1
        if request_id:
            self._request_ids[request_id] += 1

    def saw_idempotency_key(self, key: str) -> None:
        """Count a request whose Idempotency-Key was already answered with success, with any credential."""
        if key in self._answered:
            self.duplicates += 1

    def answered(self, idempotency_key: str) -> None:
        """Count a request that was answered completely and with success."""
        self.succeeded += 1
        if idempotency_key:
            self._answered.add(idempotency_key)

    def as_dict(self, keys: dict[str, KeyUse]) -> dict[str, Any]:
        """The body of `GET /_stats`."""
        return {
            "requests": self.requests,
            "refused": self.refused,
            "duplicates": self.duplicates,
            "succeeded": self.succeeded,
            "faulted": self.faulted,
            "request_ids": len(self._request_ids),
            "repeated_request_ids": sum(1 for count in self._request_ids.values() if count > 1),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "by_key": {
                key: {
                    "requests": use.requests,
                    "refused": use.refused,
                    "succeeded": use.succeeded,
                    "tokens": use.tokens,
                    "in_flight": use.in_flight,
                }
                for key, use in keys.items()
            },
        }
