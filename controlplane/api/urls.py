"""Everything below /api/v1/."""

from django.urls import URLPattern, URLResolver, include, path

from controlplane.api.events import EventsView

urlpatterns: list[URLPattern | URLResolver] = [
    path("events", EventsView.as_view()),
    path("", include("quotas.api.urls")),
    path("", include("queues.api.urls")),
]
