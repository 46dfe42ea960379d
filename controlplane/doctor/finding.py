"""The result of one examination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """`remedy` says what to do; it is empty if nothing is wrong."""

    level: Level
    subject: str
    detail: str
    remedy: str = ""


def ok(subject: str, detail: str) -> Finding:
    return Finding(Level.OK, subject, detail)


def warning(subject: str, detail: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, subject, detail, remedy)


def error(subject: str, detail: str, remedy: str) -> Finding:
    return Finding(Level.ERROR, subject, detail, remedy)
