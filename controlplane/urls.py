"""The one port: REST, health, metrics, admin."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path

from quotas.rest import problems

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("controlplane.api.urls")),
    re_path(r"^api(?:/|$)", problems.no_such_path),
]
handler400 = problems.bad_request
handler500 = problems.server_error
