"""Django's settings, all from the environment; docs/configuration.md lists every variable."""

from __future__ import annotations

import ipaddress
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from controlplane.instance import Instance
from controlplane.paths import PACKAGE_DIR
from controlplane.unfold import UNFOLD as UNFOLD  # read by the admin's theme

env = environ.Env()
INSTANCE = Instance.from_environment()
EMBEDDED_SQL = not env.str("DATABASE_URL", default="")
EMBEDDED_REDIS = not env.str("REDIS_URL", default="")

DEBUG = env.bool("SLUICE_DEBUG", default=False)
SECRET_KEY = env.str("SLUICE_SECRET_KEY", default="") or INSTANCE.secrets.get("secret_key", "")
if not SECRET_KEY:
    if not EMBEDDED_SQL:
        raise ImproperlyConfigured("SLUICE_SECRET_KEY must be set where DATABASE_URL is.")
    SECRET_KEY = get_random_secret_key()  # before the first `up` nothing is signed that must last
CREDENTIAL_KEYS: list[str] = env.list("SLUICE_CREDENTIAL_KEYS", default=[]) or list(
    INSTANCE.secrets.get("credential_keys", [])
)
ALLOWED_HOSTS = env.list("SLUICE_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("SLUICE_CSRF_TRUSTED_ORIGINS", default=[])
TRUSTED_PROXIES = [ipaddress.ip_network(net) for net in env.list("SLUICE_TRUSTED_PROXIES", default=[])]
IPV6_PREFIX = env.int("SLUICE_IPV6_PREFIX", default=64)
TASK_MODULES: list[str] = env.list("SLUICE_TASK_MODULES", default=[])
RETENTION_DAYS = env.float("SLUICE_RETENTION_DAYS", default=7.0)
RETENTION_COUNT = env.int("SLUICE_RETENTION_COUNT", default=1_000_000)
CALLBACK_NETWORKS = [
    ipaddress.ip_network(net)
    for net in env.list("SLUICE_CALLBACK_NETWORKS", default=["127.0.0.0/8", "::1/128"] if EMBEDDED_SQL else [])
]
ALERT_CALM = env.float("SLUICE_ALERT_CALM", default=30.0)
"""Seconds for which what was wrong must be over before its alert ends."""
ALERT_ERROR_RATE = env.float("SLUICE_ALERT_ERROR_RATE", default=0.2)
ALERT_BACKLOG_AGE = env.float("SLUICE_ALERT_BACKLOG_AGE", default=600.0)

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "django.contrib.admin.apps.SimpleAdminConfig",  # pages are found by controlplane.urls: only the web needs them
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "controlplane",
    "queues",  # before django_rq: our rqworker command takes the place of its
    "quotas",
    "django_rq",
]

MIDDLEWARE = [
    "controlplane.health.middleware.ProbeMiddleware",  # before host names are checked: probes come by address
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "controlplane.urls"
WSGI_APPLICATION = "controlplane.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PACKAGE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES: dict[str, dict[str, Any]]
if EMBEDDED_SQL:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(INSTANCE.database_path)}}
else:
    DATABASES = {"default": env.db("DATABASE_URL")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["ENGINE"] = "controlplane.sqlite3"
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-32000;",
    }
else:
    DATABASES["default"].setdefault("CONN_MAX_AGE", 600)
    DATABASES["default"].setdefault("CONN_HEALTH_CHECKS", True)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="") or INSTANCE.redis_url
LIMITER_REDIS_URL = env.str("LIMITER_REDIS_URL", default="") or REDIS_URL
REDIS_PREFIX = env.str("SLUICE_REDIS_PREFIX", default="sl")
LIMITER_TIMEOUT = env.float("SLUICE_LIMITER_TIMEOUT", default=0.1)
"""Seconds for connecting and for an answer: a check is refused or degraded rather than waited for."""
LIMITER_PROCESSES = env.int("SLUICE_LIMITER_PROCESSES", default=1)
"""Processes that check limits; while Redis is away, each holds its share of a `fail_open` policy's limit alone."""
RQ_QUEUES = {lane: {"URL": REDIS_URL, "DEFAULT_TIMEOUT": -1} for lane in ("io", "cpu")}
RQ = {"WORKER_CLASS": "queues.worker.worker_for_lane"}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("SLUICE_HTTPS", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = env.int("SLUICE_MAX_BODY", default=32 * 1024 * 1024)

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
DATE_FORMAT, TIME_FORMAT, DATETIME_FORMAT = "Y-m-d", "H:i:s", "Y-m-d H:i:s"

STATIC_URL = "/static/"
STATIC_ROOT = env.str("SLUICE_STATIC_ROOT", default="") or None  # for a web server of one's own in front
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "quotas.rest.authentication.ApiKeyAuthentication",
        "quotas.rest.authentication.AdminSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["quotas.rest.scopes.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["quotas.rest.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "quotas.rest.problems.handle",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "quotas.rest.negotiation.AlwaysJSON",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Sluice",
    "DESCRIPTION": "Quota and queue control plane: check limits, use API accounts, run jobs under every limit that applies.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "quotas.rest.openapi.finish",
    ],
}

LOG_LEVEL = env.str("SLUICE_LOG_LEVEL", default="INFO").upper()
LOG_FORMAT = env.str("SLUICE_LOG_FORMAT", default="console" if EMBEDDED_SQL else "json")
LOGGING_CONFIG = "controlplane.observability.logs.configure"
LOGGING = {"level": LOG_LEVEL, "format": LOG_FORMAT}
