"""The checks of `manage.py doctor` as a page."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from controlplane.doctor import Level, examine
from quotas.admin.visibility import project_ids

NEEDED = "controlplane.view_auditentry"
TONES = {Level.OK: "completed", Level.WARNING: "warning", Level.ERROR: "critical"}


def may_see(request: HttpRequest) -> bool:
    return project_ids(request.user) is None and request.user.has_perm(NEEDED)


def doctor_page(request: HttpRequest) -> HttpResponse:
    if not may_see(request):
        raise PermissionDenied
    findings = sorted(examine(), key=lambda finding: list(TONES).index(finding.level), reverse=True)
    given = {
        **admin.site.each_context(request),
        "title": "Doctor",
        "findings": [{"finding": one, "tone": TONES[one.level]} for one in findings],
        "wrong": sum(one.level is not Level.OK for one in findings),
    }
    return TemplateResponse(request, "admin/sluice/doctor.html", given)


doctor_view = admin.site.admin_view(doctor_page)
