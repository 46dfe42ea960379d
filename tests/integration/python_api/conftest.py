from tests.integration.api.conftest import empty

__all__ = ["empty"]
