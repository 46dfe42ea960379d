"""The web server's ASGI application: a fast path for frequent calls, and Django for all others."""
