"""The recent calls through the gateway: of a pool, of a project, or of all."""

from __future__ import annotations

import heapq
from datetime import datetime
from itertools import islice
from typing import Any

from django.http import Http404

from controlplane.observability import recent_calls
from quotas.models import Pool, Project

SHOWN = 50
LOOKED_AT = 2_000
"""Calls that are looked at for the few that are shown, so that a page costs the same however many there are."""


def of_all(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    return _shown(_visible(projects))


def of_pool(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    pool = Pool.objects.filter(pk=pk or 0).first()
    if pool is None:
        raise Http404
    return _shown([call for call in _visible(projects) if call["pool"] == pool.name])


def of_project(projects: list[int] | None, pk: int | None) -> dict[str, Any]:
    project = Project.objects.filter(pk=pk or 0).first()
    if project is None or (projects is not None and project.pk not in projects):
        raise Http404
    return _shown(_newest(project.slug))


def _visible(projects: list[int] | None) -> list[dict[str, Any]]:
    if projects is None:
        return _newest(None)
    slugs = Project.objects.filter(pk__in=projects).values_list("slug", flat=True)
    every = (call for slug in slugs for call in _newest(slug))
    return heapq.nlargest(LOOKED_AT, every, key=lambda call: call["at"])


def _newest(project: str | None) -> list[dict[str, Any]]:
    return [call for _, call in islice(recent_calls.calls(project), LOOKED_AT)]


def _shown(calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"calls": [_row(call) for call in calls[:SHOWN]], "more": max(0, len(calls) - SHOWN)}


def _row(call: dict[str, Any]) -> dict[str, Any]:
    used = {name: amount for name, amount in call["actual"].items() if name != "requests"}
    return {
        **call,
        "moment": datetime.fromisoformat(call["at"]),
        "named": call["outcome"].replace("_", " "),
        "tone": "completed" if call["outcome"] == "ok" else "paused" if call["attempts"] == 0 else "dead",
        "used": ", ".join(f"{amount:,} {name.replace('_', ' ')}" for name, amount in used.items()),
        "why": call["refusal"].get("detail", ""),
    }
