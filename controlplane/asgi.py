"""The ASGI application for a server: the fast path in front of Django."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_wsgi_application()

from django.urls import get_resolver  # noqa: E402

from controlplane.application import Application  # noqa: E402  needs Django to be set up

application = Application(_django)

# What is loaded by now stays: a full collection that walks through it stops all requests for a tenth of a second, and
# a large body triggers several.
assert get_resolver().url_patterns
gc.collect()
gc.freeze()
