"""The one port: REST, health, metrics, admin."""

from django.apps import apps
from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from controlplane import error_pages
from quotas.rest import problems

# Imported here and not when Django starts: workers and the dispatcher have no pages, and need a third less memory without.
admin.autodiscover()
# rq's own pages would show every project's jobs to anybody with a permission of that application.
for model in apps.get_app_config("django_rq").get_models():
    if admin.site.is_registered(model):
        admin.site.unregister(model)

from controlplane.admin.configuration import configuration_view  # noqa: E402
from controlplane.admin.dashboard import calls_view, live_view, project_view  # noqa: E402
from controlplane.admin.doctor import doctor_view  # noqa: E402
from controlplane.admin.invitation import InvitationView  # noqa: E402
from controlplane.admin.login import login  # noqa: E402
from controlplane.admin.preferences import preferences_view  # noqa: E402

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/live/<slug:name>", live_view, name="admin-live"),
    path("admin/project/", project_view, name="admin-project"),
    path("admin/doctor/", doctor_view, name="admin-doctor"),
    path("admin/configuration/", configuration_view, name="admin-configuration"),
    path("admin/preferences/", preferences_view, name="admin-preferences"),
    path("admin/calls/", calls_view, name="admin-calls"),
    path("admin/login/", login),
    path("admin/invitation/<uidb64>/<token>/", InvitationView.as_view(), name="admin-invitation"),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("favicon.ico", RedirectView.as_view(url="/static/controlplane/favicon.svg")),
    path("api/v1/", include("controlplane.api.urls")),
    re_path(r"^api(?:/|$)", problems.no_such_path),
]
handler400 = error_pages.bad_request
handler403 = error_pages.forbidden
handler404 = error_pages.not_found
handler500 = error_pages.server_error
