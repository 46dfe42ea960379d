"""Prepaid blocks, reported outcomes, and resets as the API shows them."""

from __future__ import annotations

from quotas.shapes import Shape, field


class Block(Shape):
    id: str
    units: int = field(help="Near the limit fewer than requested.")
    unit: str
    expires_in: float = field(digits=6, help="Seconds.")


class BlockEnd(Shape):
    id: str
    spent: int
    refunded: int


class CountedPolicies(Shape):
    policies: list[str] = field(help="Adaptive policies that it counts for.")


class Reset(Shape):
    reset: int = field(help="Counters that were cleared.")
