"""Projects: made and looked up by slug."""

from __future__ import annotations

from django.db import transaction

from quotas import events
from quotas.models import Project


def create(slug: str, *, actor: str, name: str = "", weight: int = 1) -> Project:
    """A new project. Raises `ValidationError` for a slug that is taken or has another form than names have."""
    project = Project(slug=slug, name=name, weight=weight)
    project.full_clean()
    with transaction.atomic():
        project.save()
        after = {"slug": slug, "name": name, "weight": weight}
        events.emit(events.OperatorActed(actor, "project.create", f"project:{slug}", None, after, project=slug))
    return project


def set_weight(project: Project, weight: int, *, actor: str, reason: str) -> Project:
    """Give the project another share of the workers. Audited where it is another one."""
    with transaction.atomic():
        row = Project.objects.select_for_update().get(pk=project.pk)
        before, row.weight = row.weight, weight
        if before != weight:
            row.save(update_fields=["weight", "updated_at"])
            facts = ({"weight": before}, {"weight": weight})
            events.emit(
                events.OperatorActed(actor, "project.change", f"project:{row}", *facts, reason, project=row.slug)
            )
    return row
