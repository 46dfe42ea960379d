"""The front door: one ASGI application that answers the hot calls itself and hands the rest to Django."""
