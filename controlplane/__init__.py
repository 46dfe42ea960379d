"""The product around the two apps: settings, commands, web server, admin, alerts, observability."""

__version__ = "0.2.0"
