"""Settings and keys."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from controlplane.doctor.finding import Finding, error, ok, warning
from controlplane.environment import is_fernet_key


def examine() -> Iterator[Finding]:
    if settings.DEBUG:
        yield warning("debug", "SLUICE_DEBUG is on: errors show settings.", "Unset SLUICE_DEBUG in production.")
    if len(settings.SECRET_KEY) < 40:
        yield warning("secret key", "SLUICE_SECRET_KEY is short.", "Set one of at least 40 random characters.")
    elif not settings.INSTANCE.secrets and settings.EMBEDDED_SQL:
        yield warning("secret key", "None yet: sessions end with the process.", "Run `manage.py up` once.")
    else:
        yield ok("secret key", "is set")
    yield _credential_keys()
    if "*" in settings.ALLOWED_HOSTS:
        yield warning("hosts", "SLUICE_ALLOWED_HOSTS allows any name.", "List the names that you serve.")
    else:
        yield ok("hosts", ", ".join(settings.ALLOWED_HOSTS))
    if any(network.prefixlen == 0 for network in settings.TRUSTED_PROXIES):
        yield error(
            "proxies",
            "SLUICE_TRUSTED_PROXIES trusts everybody, so that anybody chooses the address that is counted.",
            "List your proxies' own addresses.",
        )


def _credential_keys() -> Finding:
    keys = settings.CREDENTIAL_KEYS
    if not keys:
        return error(
            "credential keys",
            "No key, so no account's credential can be stored or read.",
            "Run `manage.py up` once, or set SLUICE_CREDENTIAL_KEYS to a Fernet key.",
        )
    if not all(map(is_fernet_key, keys)):
        return error("credential keys", "One of them is not a Fernet key.", "Each is 32 bytes in URL-safe base 64.")
    return ok("credential keys", f"{len(keys)}, the first one encrypts")
