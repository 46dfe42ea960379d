"""Sluice: jobs submitted from Python, in a process on the instance's database."""

from __future__ import annotations

import os

import django

from bench.durable.job import steadily_in_threads

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()

from queues import submit  # noqa: E402


def steady(rate: float, seconds: float) -> None:
    steadily_in_threads(
        lambda at: submit("bench.timed", payload={"at": at}, project="bench", queue="batch"), rate, seconds
    )
