"""The one form that names take: they appear in URLs, keys, metrics and YAML."""

from django.core.validators import RegexValidator

name_validator = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z",
    "1 to 63 letters, digits, dots, dashes and underscores, beginning with a letter or a digit.",
)
