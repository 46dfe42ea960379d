"""Projects by slug for submits from Python, read once for each version of the configuration."""

from __future__ import annotations

import copy

from queues import config
from quotas.models import Project

_known: dict[str, tuple[int, Project]] = {}
"""By slug: the version of the configuration before the project was read, and the project."""


def known(slug: str) -> Project | None:
    """The project as far as this process knows; None if there is none. The statement that uses it checks it."""
    config.current()  # compares the version
    version = config.snapshot.version
    found = _known.get(slug)
    if found is None or found[0] != version:
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            return None
        found = _known[slug] = version, project
    return copy.copy(found[1])


def correct(project: Project) -> None:
    """Remember this project for its slug, which another one had: after a restore versions are counted anew."""
    _known[project.slug] = config.snapshot.version, copy.copy(project)
