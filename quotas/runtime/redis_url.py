"""Clients by URL: one server, one that Sentinel names, or a cluster.

redis://host:6379/0   rediss://..   unix:///path
redis+sentinel://[user:password@]host:26379,host:26379/name[/0][?sentinel_password=..]    the primary called `name`
redis+cluster://[user:password@]host:6379,host:6379                                       any nodes of it
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"


def client(url: str, **options: Any) -> redis.Redis | RedisCluster:
    """A client of the server that `url` names; `options` are redis-py's. Raises ValueError for a URL that is none.

    With Sentinel each new connection goes to the present primary; the nodes of a cluster are read at once.
    """
    scheme = url.partition("://")[0]
    if scheme not in (SENTINEL, CLUSTER):
        return redis.Redis.from_url(url, **options)
    parts = urlsplit(url)
    places, credentials = _places(parts.netloc)
    query = dict(parse_qsl(parts.query))
    if scheme == CLUSTER:
        options.pop("max_connections", None)  # of each node; one pool is enough here
        nodes = [ClusterNode(host, port) for host, port in places]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **credentials, **options)
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError(f"{SENTINEL}: the name of the primary is missing, as in {SENTINEL}://host:26379/mymaster")
    timeouts = {key: value for key, value in options.items() if key.startswith("socket_")}
    if "sentinel_password" in query:
        timeouts["password"] = query["sentinel_password"]
    sentinel = Sentinel(places, sentinel_kwargs=timeouts)  # type: ignore[no-untyped-call]
    primary: redis.Redis = sentinel.master_for(  # type: ignore[no-untyped-call]
        name, db=int(database or 0), **credentials, **options
    )
    return primary


def one_server(url: str, **options: Any) -> redis.Redis:
    """A client of one server: of a cluster, one of its nodes. For inspecting it."""
    found = client(url, **options)
    if not isinstance(found, RedisCluster):
        return found
    return found.get_redis_connection(found.get_default_node())  # type: ignore[no-untyped-call]


def _places(netloc: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Hosts with their ports, and user and password where the URL has them."""
    secrets, _, hosts = netloc.rpartition("@")
    user, _, password = secrets.partition(":")
    credentials = {"username": unquote(user), "password": unquote(password)}
    places = []
    for place in hosts.split(","):
        host, colon, port = place.rpartition(":")
        if not colon or not port.isdigit() or not host:
            raise ValueError(f"{place!r} is no host:port")
        places.append((host.strip("[]"), int(port)))
    return places, {name: value for name, value in credentials.items() if value}
