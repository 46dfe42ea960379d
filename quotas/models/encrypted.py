"""Text that is encrypted in SQL: MultiFernet over `SLUICE_CREDENTIAL_KEYS`, newest key first.

The library takes 6 MiB, and many processes never encrypt or decrypt anything: it is imported where it is first used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet


class CredentialUnreadable(Exception):
    """A stored credential can't be decrypted with the keys in SLUICE_CREDENTIAL_KEYS."""


@lru_cache(maxsize=4)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    from cryptography.fernet import Fernet, MultiFernet  # see the top

    if not keys:
        raise ImproperlyConfigured("SLUICE_CREDENTIAL_KEYS is not set, so no credential can be stored or read.")
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # The library's message may contain the key itself.
        raise ImproperlyConfigured("SLUICE_CREDENTIAL_KEYS contains something that is no Fernet key.") from None


def cipher() -> MultiFernet:
    """The cipher of the present settings; without keys it fails closed."""
    return _cipher(tuple(settings.CREDENTIAL_KEYS))


def validate_credential(value: str) -> None:
    """A credential goes into a header field or an address. The message does not repeat it."""
    if not (value.isascii() and value.isprintable()):
        raise ValidationError("must be printable ASCII on one line.")


class Ciphertext(str):
    """A value as SQL stores it. It is decrypted on purpose only, by `reveal`, so that no page or log does by accident."""

    def __repr__(self) -> str:
        return "Ciphertext(…)"

    def reveal(self) -> str:
        """The plain text; raises `CredentialUnreadable` where no key fits."""
        from cryptography.fernet import InvalidToken  # see the top

        try:
            return cipher().decrypt(str.__str__(self).encode()).decode()
        except InvalidToken:
            raise CredentialUnreadable(CredentialUnreadable.__doc__) from None

    def renewed(self) -> Ciphertext:
        """The same text, encrypted with the newest key; raises `CredentialUnreadable` where no key fits."""
        from cryptography.fernet import InvalidToken  # see the top

        try:
            return Ciphertext(cipher().rotate(str.__str__(self).encode()).decode())
        except InvalidToken:
            raise CredentialUnreadable(CredentialUnreadable.__doc__) from None


if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]
else:
    _TextField = models.TextField


class EncryptedTextField(_TextField):
    """Plain text in, `Ciphertext` out."""

    def get_prep_value(self, value: Any) -> Any:
        if value is None or isinstance(value, Ciphertext):
            return None if value is None else str.__str__(value)
        return cipher().encrypt(str(value).encode()).decode()

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Ciphertext | None:
        return None if value is None else Ciphertext(value)
