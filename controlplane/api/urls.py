"""Everything below /api/v1/."""

from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("quotas.api.urls")),
    path("", include("queues.api.urls")),
]
