"""The look of the admin and its navigation, as data for the settings."""

from __future__ import annotations

from typing import Any

from django.urls import reverse_lazy
from django.utils.module_loading import import_string


def _page(title: str, icon: str, model: str, **more: Any) -> dict[str, Any]:
    """A link to the list of `app.model`, for those who may see it."""
    app, _, name = model.partition(".")

    def may(request: Any) -> bool:
        from django.apps import apps
        from django.contrib import admin

        found = admin.site._registry.get(apps.get_model(app, name))
        return found is not None and found.has_module_permission(request) and found.has_view_permission(request)

    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": may,
        **more,
    }


def _own(title: str, icon: str, url: str, rule: str) -> dict[str, Any]:
    """A link to a page that is no list of a model; `rule` is the dotted name of the function that says who may see it."""

    def may(request: Any) -> bool:
        return bool(import_string(rule)(request))

    return {"title": title, "icon": icon, "link": reverse_lazy(url), "permission": may}


def _file(path: str) -> Any:
    def address(request: Any) -> str:
        from django.templatetags.static import static

        return static(path)

    return address


NAVIGATION: list[dict[str, Any]] = [
    {"items": [{"title": "Dashboard", "icon": "dashboard", "link": reverse_lazy("admin:index")}]},
    {
        "title": "Work",
        "separator": True,
        "items": [
            _page("Queues", "stacks", "queues.queue"),
            _page("Jobs", "task_alt", "queues.job"),
            _page("Batches", "inventory_2", "queues.batch"),
            _page("Dead letters", "report", "queues.deadletter", badge="controlplane.admin.badges.open_letters"),
            _page("Alerts", "notifications", "controlplane.alert", badge="controlplane.admin.badges.open_alerts"),
            _page("Recurring jobs", "event_repeat", "queues.recurring"),
            _page("Workers", "memory", "queues.workerprocess"),
            _page("Bulk actions", "checklist", "queues.bulkaction"),
        ],
    },
    {
        "title": "Limits",
        "separator": True,
        "items": [
            _page("Policies", "speed", "quotas.policy"),
            _page("Overrides", "tune", "quotas.override"),
            _page("Tiers", "workspace_premium", "quotas.tier"),
            _page("Cost rules", "payments", "quotas.costrule"),
            _page("Networks", "lan", "quotas.network"),
        ],
    },
    {
        "title": "Upstreams",
        "separator": True,
        "items": [
            _page("Accounts", "key_vertical", "quotas.account"),
            _page("Pools", "hub", "quotas.pool"),
            _page("Providers", "cloud", "quotas.provider"),
            _page("Gateway calls", "swap_calls", "quotas.pool", link=reverse_lazy("admin-calls")),
            _page("Retry policies", "replay", "queues.retrypolicy"),
        ],
    },
    {
        "title": "Access",
        "separator": True,
        "items": [
            _page("Projects", "folder", "quotas.project"),
            _page("API keys", "vpn_key", "quotas.apikey"),
            _page("People", "person", "auth.user"),
            _page("Roles", "group", "auth.group"),
            _page("Alert rules", "campaign", "controlplane.alertrule"),
            _page("Audit log", "history", "controlplane.auditentry"),
            _own("Configuration", "description", "admin-configuration", "controlplane.admin.configuration.may_apply"),
            _own("Doctor", "stethoscope", "admin-doctor", "controlplane.admin.doctor.may_see"),
        ],
    },
]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Sluice",
    "SITE_HEADER": "Sluice",
    "SITE_SUBHEADER": "Quotas and queues",
    "SITE_SYMBOL": "water",
    "SITE_URL": "/api/v1/docs",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _file("controlplane/favicon.svg")}],
    "SCRIPTS": [
        _file(f"controlplane/{name}.js") for name in ("sluice", "live", "commands", "toasts", "stream", "keys", "once")
    ],
    "STYLES": [_file("controlplane/sluice.css")],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "DASHBOARD_CALLBACK": "controlplane.admin.dashboard.context",
    "BORDER_RADIUS": "8px",
    "COLORS": {
        "primary": {
            "50": "oklch(97.5% .014 220)",
            "100": "oklch(94.5% .032 218)",
            "200": "oklch(89.5% .062 216)",
            "300": "oklch(82% .098 215)",
            "400": "oklch(73% .125 218)",
            "500": "oklch(64% .128 223)",
            "600": "oklch(54% .118 229)",
            "700": "oklch(46.5% .1 232)",
            "800": "oklch(40% .082 234)",
            "900": "oklch(34.5% .066 236)",
            "950": "oklch(26% .05 238)",
        },
    },
    "COMMAND": {
        "search_models": ["quotas.project", "quotas.policy", "queues.queue", "quotas.account"],
        "search_callback": "controlplane.admin.palette.found",
    },
    "ACCOUNT": {
        "navigation": [
            {"title": "Preferences", "link": reverse_lazy("admin-preferences")},
            {
                "title": "Change password",
                "link": reverse_lazy("admin:password_change"),
                "permission": lambda request: request.user.has_usable_password(),
            },
        ]
    },
    "SIDEBAR": {"show_search": True, "show_all_applications": False, "navigation": NAVIGATION},
}
