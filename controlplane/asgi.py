"""The ASGI application for a server: the fast path in front of Django."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_wsgi_application()

from controlplane.application import Application  # noqa: E402  needs Django to be set up

application = Application(_django)
