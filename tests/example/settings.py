"""Any project's settings, with the three lines that make it use the policies: app, middleware, options."""

from controlplane.settings import *  # noqa: F403  the database and Redis of the instance with the policies
from controlplane.settings import MIDDLEWARE

ROOT_URLCONF = "tests.example.urls"
MIDDLEWARE = [*MIDDLEWARE, "quotas.middleware.RateLimitMiddleware"]
SLUICE = {"PROJECT": "shop", "EXCLUDED_PATHS": ["/health"]}
