"""Real servers for the property tests."""

from tests.valkey import valkey_server  # noqa: F401
