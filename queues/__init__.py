"""Jobs: accepted, admitted, run, settled. What users import: `task`, `submit`, the errors."""

from __future__ import annotations

from typing import Any

_EXPORTS = {
    "task": "queues.tasks",
    "submit": "queues.services.submit",
    "JobError": "queues.errors",
    "QueueError": "queues.errors",
    "QueueFull": "queues.errors",
    "IdempotencyKeyReused": "queues.errors",
    "UnknownJobType": "queues.errors",
    "InvalidJob": "queues.errors",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    # Imported at use: Django imports this package before its apps are ready.
    from importlib import import_module

    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(name)
