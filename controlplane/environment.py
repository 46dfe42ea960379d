"""The product's environment variables: one typed field each, all read and checked here and nowhere else.

A wrong value never starts a process: `read()` raises one error that names each wrong variable and what it must be.
`docs/configuration.md` describes every variable; a test compares both.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def text(value: str) -> str:
    """Any text."""
    return value


def flag(value: str) -> bool:
    """`true` or `false`, also `1`/`0`, `yes`/`no`, `on`/`off`."""
    if value.lower() not in (*_TRUE, *_FALSE):
        raise ValueError("must be true or false")
    return value.lower() in _TRUE


def whole(minimum: int, maximum: int = 2**53) -> Callable[[str], int]:
    """A whole number within both bounds."""

    def parse(value: str) -> int:
        if not value.isascii() or not value.removeprefix("-").isdigit() or not minimum <= int(value) <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return int(value)

    return parse


def number(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    """A finite number within both bounds."""

    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            parsed = math.nan
        if not (math.isfinite(parsed) and minimum <= parsed <= maximum):
            bounds = f"of {minimum:g} or more" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
            raise ValueError(f"must be a number {bounds}")
        return parsed

    return parse


def words(value: str) -> tuple[str, ...]:
    """Words separated by commas; blanks around them do not count."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def member_names(value: str) -> tuple[str, ...]:
    """Names of JSON members, separated by commas, in lower case without blanks, dashes, dots and underscores."""
    found = tuple("".join(letter for letter in word.lower() if letter not in " _.-") for word in words(value))
    if not all(len(name) >= 3 for name in found):
        raise ValueError("must be names of at least three letters or digits, separated by commas")
    return found


def networks(value: str) -> tuple[Network, ...]:
    """Networks in CIDR form, separated by commas."""
    try:
        return tuple(ipaddress.ip_network(word) for word in words(value))
    except ValueError as error:
        raise ValueError(f"must be networks such as 10.0.0.0/8, separated by commas ({error})") from None


def fernet_keys(value: str) -> tuple[str, ...]:
    """Fernet keys, newest first, separated by commas. The error never repeats a key."""
    keys = words(value)
    for position, key in enumerate(keys, 1):
        if not is_fernet_key(key):
            raise ValueError(f"key {position} is not a Fernet key (32 bytes as URL-safe base64)")
    return keys


def is_fernet_key(text: str) -> bool:
    """As `cryptography.fernet.Fernet` decides, which would be loaded in each process for this alone."""
    try:
        return len(base64.urlsafe_b64decode(text)) == 32
    except ValueError:
        return False


def choice(*allowed: str) -> Callable[[str], str]:
    """One of these words, in any case."""

    def parse(value: str) -> str:
        found = next((word for word in allowed if word.lower() == value.lower()), None)
        if found is None:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return found

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of these schemes. The error never repeats the URL, which may contain a password."""

    def parse(value: str) -> str:
        if urlsplit(value).scheme not in schemes:
            raise ValueError(f"must be a URL that begins with {', '.join(f'{scheme}://' for scheme in schemes)}")
        return value

    return parse


def variable(name: str, parse: Callable[[str], Any], default: Any) -> Any:
    """A field that is read from the variable `name`; `default` where the variable is missing or blank."""
    return field(default=default, metadata={"name": name, "parse": parse})


_REDIS = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")


@dataclass(frozen=True)
class Environment:
    """Every variable as a checked value. None: not set, and the default depends on the instance."""

    database_url: str | None = variable("DATABASE_URL", url("postgres", "postgresql", "sqlite"), None)
    redis_url: str | None = variable("REDIS_URL", url("redis", "rediss", "unix"), None)
    limiter_redis_url: str | None = variable("LIMITER_REDIS_URL", url(*_REDIS), None)
    redis_prefix: str = variable("SLUICE_REDIS_PREFIX", text, "sl")
    limiter_timeout: float = variable("SLUICE_LIMITER_TIMEOUT", number(0.001, 60), 0.1)
    limiter_processes: int = variable("SLUICE_LIMITER_PROCESSES", whole(1, 10_000), 1)

    secret_key: str | None = variable("SLUICE_SECRET_KEY", text, None)
    credential_keys: tuple[str, ...] = variable("SLUICE_CREDENTIAL_KEYS", fernet_keys, ())

    allowed_hosts: tuple[str, ...] = variable("SLUICE_ALLOWED_HOSTS", words, ("localhost", "127.0.0.1", "[::1]"))
    trusted_proxies: tuple[Network, ...] = variable("SLUICE_TRUSTED_PROXIES", networks, ())
    csrf_trusted_origins: tuple[str, ...] = variable("SLUICE_CSRF_TRUSTED_ORIGINS", words, ())
    https: bool = variable("SLUICE_HTTPS", flag, False)
    ipv6_prefix: int = variable("SLUICE_IPV6_PREFIX", whole(1, 128), 64)
    max_body: int = variable("SLUICE_MAX_BODY", whole(1), 32 * 1024 * 1024)
    gateway_max_body: int = variable("SLUICE_GATEWAY_MAX_BODY", whole(1), 32 * 1024 * 1024)
    gateway_max_headers: int = variable("SLUICE_GATEWAY_MAX_HEADERS", whole(1024), 64 * 1024)
    gateway_max_calls: int = variable("SLUICE_GATEWAY_MAX_CALLS", whole(1), 2000)
    static_root: str | None = variable("SLUICE_STATIC_ROOT", text, None)
    debug: bool = variable("SLUICE_DEBUG", flag, False)

    task_modules: tuple[str, ...] = variable("SLUICE_TASK_MODULES", words, ())
    redact_names: tuple[str, ...] = variable("SLUICE_REDACT_NAMES", member_names, ())
    callback_networks: tuple[Network, ...] | None = variable("SLUICE_CALLBACK_NETWORKS", networks, None)
    concurrency: int = variable("SLUICE_CONCURRENCY", whole(1, 100_000), 50)
    cpu_concurrency: int = variable("SLUICE_CPU_CONCURRENCY", whole(1, 10_000), 16)
    grace: float = variable("SLUICE_GRACE", number(0), 25.0)
    stuck_after: float = variable("SLUICE_STUCK_AFTER", number(0), 10.0)
    max_jobs: int = variable("SLUICE_MAX_JOBS", whole(0), 0)
    max_memory: float = variable("SLUICE_MAX_MEMORY", number(0), 0.0)
    retention_days: float = variable("SLUICE_RETENTION_DAYS", number(0), 7.0)
    retention_count: int = variable("SLUICE_RETENTION_COUNT", whole(0), 1_000_000)

    public_url: str | None = variable("SLUICE_PUBLIC_URL", url("http", "https"), None)
    otlp_endpoint: str | None = variable("OTEL_EXPORTER_OTLP_ENDPOINT", url("http", "https"), None)
    alert_calm: float = variable("SLUICE_ALERT_CALM", number(0), 30.0)
    alert_error_rate: float = variable("SLUICE_ALERT_ERROR_RATE", number(0, 1), 0.2)
    alert_failure_rate: float = variable("SLUICE_ALERT_FAILURE_RATE", number(0, 1), 0.1)
    alert_backlog_age: float = variable("SLUICE_ALERT_BACKLOG_AGE", number(0), 600.0)

    log_level: str = variable("SLUICE_LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "INFO")
    log_format: str | None = variable("SLUICE_LOG_FORMAT", choice("json", "console"), None)


def read(environ: Mapping[str, str] | None = None) -> Environment:
    """The checked environment. Raises ImproperlyConfigured with every mistake, one line each."""
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for item in fields(Environment):
        raw = source.get(name_of(item), "").strip()
        if not raw:
            continue
        try:
            values[item.name] = item.metadata["parse"](raw)
        except ValueError as error:
            mistakes.append(f"{name_of(item)} {error}.")
    if mistakes:
        raise ImproperlyConfigured("\n".join(mistakes))
    return Environment(**values)


def name_of(item: Field[Any]) -> str:
    """The variable that a field is read from."""
    return str(item.metadata["name"])


def secret(variable: str | None) -> str | None:
    """The secret in a variable that a configuration names, without surrounding blanks and line ends; None if no
    variable is named, or it is not set or empty."""
    return os.environ.get(variable, "").strip() or None if variable else None
