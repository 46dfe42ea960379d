"""Everything below /api/v1/."""

from django.urls import URLPattern, URLResolver, include, path

from controlplane.api.alerts import AlertsView, AlertView, alert_action
from controlplane.api.audit import AuditView
from controlplane.api.backtest import BacktestView
from controlplane.api.calls import CallExplainView, CallsView, CallView
from controlplane.api.events import EventsView
from controlplane.api.schema import DocsView, SchemaView

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(url_name="schema"), name="docs"),
    path("audit", AuditView.as_view()),
    path("alerts", AlertsView.as_view()),
    path("alerts/<str:uid>", AlertView.as_view()),
    path("alerts/<str:uid>/acknowledge", alert_action("acknowledge").as_view()),
    path("alerts/<str:uid>/resolve", alert_action("resolve").as_view()),
    path("calls", CallsView.as_view()),
    path("calls/<str:call>", CallView.as_view()),
    path("calls/<str:call>/explain", CallExplainView.as_view()),
    path("events", EventsView.as_view()),
    path("limits/backtest", BacktestView.as_view()),
    path("", include("quotas.api.urls")),
    path("", include("queues.api.urls")),
]
