"""What a provider counts a call by, besides its account: a model, or a resource of its API.

Most dialects count by the model that a call names. GitHub counts by resource, which follows from the path:
https://docs.github.com/en/rest/rate-limit/rate-limit
"""

from __future__ import annotations

_DEFAULTS = {"github": "core"}
_BY_PATH = {"github": (("/search/code", "code_search"), ("/search/", "search"), ("/graphql", "graphql"))}


def default_of(dialect: str) -> str:
    """What a call that names no model or resource is counted by; empty: by what such calls share."""
    return _DEFAULTS.get(dialect, "")


def of_path(dialect: str, path: str) -> str:
    """The resource that a path belongs to; empty where the dialect does not count by path."""
    for prefix, resource in _BY_PATH.get(dialect, ()):
        if path.startswith((prefix, "/api/v3" + prefix)) or path in (prefix, "/api" + prefix):
            return resource
    return default_of(dialect)
