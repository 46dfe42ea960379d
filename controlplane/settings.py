"""Django's settings, all from the environment; docs/configuration.md lists every variable."""

from __future__ import annotations

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from controlplane import __version__, environment
from controlplane.instance import Instance
from controlplane.paths import PACKAGE_DIR
from controlplane.unfold import UNFOLD as UNFOLD  # read by the admin's theme

ENV = environment.read()
INSTANCE = Instance.from_environment()
EMBEDDED_SQL = ENV.database_url is None
EMBEDDED_REDIS = ENV.redis_url is None

DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key or INSTANCE.secrets.get("secret_key", "")
if not SECRET_KEY:
    if not EMBEDDED_SQL:
        raise ImproperlyConfigured("SLUICE_SECRET_KEY must be set where DATABASE_URL is.")
    SECRET_KEY = get_random_secret_key()  # before the first `up`, nothing signed has to last
CREDENTIAL_KEYS: list[str] = list(ENV.credential_keys or INSTANCE.secrets.get("credential_keys", []))
ALLOWED_HOSTS = list(ENV.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENV.csrf_trusted_origins)
TRUSTED_PROXIES = list(ENV.trusted_proxies)
IPV6_PREFIX = ENV.ipv6_prefix
TASK_MODULES: list[str] = list(ENV.task_modules)
CONCURRENCY = ENV.concurrency
CPU_CONCURRENCY = ENV.cpu_concurrency
WORKER_GRACE = ENV.grace
STUCK_AFTER = ENV.stuck_after
MAX_JOBS = ENV.max_jobs
MAX_MEMORY = ENV.max_memory
VERSION = __version__
RETENTION_DAYS = ENV.retention_days
RETENTION_COUNT = ENV.retention_count
_LOOPBACK = environment.networks("127.0.0.0/8,::1/128") if EMBEDDED_SQL else ()
REDACT_NAMES = ENV.redact_names
CALLBACK_NETWORKS = list(_LOOPBACK if ENV.callback_networks is None else ENV.callback_networks)
TRACING = ENV.otlp_endpoint is not None
PUBLIC_URL = (ENV.public_url or "").rstrip("/")
"""Where people reach the admin site: for links in notices of alerts."""
ALERT_CALM = ENV.alert_calm
"""Seconds for which a problem must be over before its alert ends."""
ALERT_ERROR_RATE = ENV.alert_error_rate
ALERT_FAILURE_RATE = ENV.alert_failure_rate
ALERT_BACKLOG_AGE = ENV.alert_backlog_age

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
    "queues",  # before django_rq: our rqworker command replaces its command
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
    "controlplane.admin.session_end.SessionEndMiddleware",
    "controlplane.admin.time_zone.TimeZoneMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

if TRACING:
    MIDDLEWARE.insert(0, "controlplane.http.tracing.TraceMiddleware")

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
                "controlplane.admin.toolbar.tools",
            ],
        },
    }
]

DATABASES: dict[str, dict[str, Any]]
if ENV.database_url is None:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(INSTANCE.database_path)}}
else:
    DATABASES = {"default": environ.Env.db_url_config(ENV.database_url)}
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

REDIS_URL = ENV.redis_url or INSTANCE.redis_url
LIMITER_REDIS_URL = ENV.limiter_redis_url or REDIS_URL
REDIS_PREFIX = ENV.redis_prefix
LIMITER_TIMEOUT = ENV.limiter_timeout
"""Seconds for connecting and for an answer; after that a check is refused or decided locally."""
LIMITER_PROCESSES = ENV.limiter_processes
"""Processes that check limits; while Redis is unavailable, each enforces its share of a `fail_open` policy's limit."""
RQ_QUEUES = {lane: {"URL": REDIS_URL, "DEFAULT_TIMEOUT": -1} for lane in ("io", "cpu")}
RQ = {"WORKER_CLASS": "queues.worker.worker_for_lane"}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 3 * 86400
"""Seconds for which a one-time link to choose a password works."""
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = ENV.https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = ENV.max_body
GATEWAY_MAX_BODY = ENV.gateway_max_body
GATEWAY_MAX_HEADERS = ENV.gateway_max_headers
GATEWAY_MAX_CALLS = ENV.gateway_max_calls

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "controlplane.formats"
USE_TZ = True
DATE_FORMAT, TIME_FORMAT, DATETIME_FORMAT = "Y-m-d", "H:i:s", "Y-m-d H:i:s"

STATIC_URL = "/static/"
STATIC_ROOT = ENV.static_root  # for a web server in front
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
    "ENUM_NAME_OVERRIDES": {
        "AccountState": "quotas.engine.account_state.STATES",
        "CallError": "quotas.engine.categories.UNANSWERED",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "quotas.rest.openapi.finish",
    ],
}

LOG_LEVEL = ENV.log_level
LOG_FORMAT = ENV.log_format or ("console" if EMBEDDED_SQL else "json")
LOGGING_CONFIG = "controlplane.observability.logs.configure"
LOGGING = {"level": LOG_LEVEL, "format": LOG_FORMAT}
