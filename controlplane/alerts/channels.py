"""Where notices go: `webhook+https://` posts JSON, anything else is an address of the library apprise.

https://github.com/caronc/apprise/wiki lists the services and how their addresses are written. Neither the library's
logs nor its errors are kept: addresses contain tokens.
"""

from __future__ import annotations

import http.client
import json
import logging
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from controlplane.alerts.deadline import Deadline, TooSlow
from queues.services import webhook

_WEBHOOKS = {"webhook+http": "http", "webhook+https": "https"}
_MOODS = {"info": "info", "warning": "warning", "critical": "failure"}
APPRISE = Deadline(30.0)
"""For one try with all of an address's targets, between which the library waits."""


class NotDelivered(Exception):
    """The address did not accept the notification. The text never contains the address."""


def problem(address: str) -> str | None:
    """Why an address is not valid; None if it is."""
    scheme, mark, _ = address.partition("://")
    if not mark:
        return "is no address: it needs a scheme, such as webhook+https://"
    if scheme.lower() in _WEBHOOKS:
        return None if _parts(address) is not None else "is no webhook+http or webhook+https address with a host"
    if scheme.lower() in ("http", "https"):
        return "begins with http: a webhook's address begins with webhook+https://"
    return None if _library().Apprise().add(address) else "is no address that apprise knows"


def deliver(address: str, message_id: str, title: str, text: str, document: dict[str, Any]) -> None:
    """One try. Raises `NotDelivered`. `document` is what a webhook gets; `title` and `text` are for people."""
    if address.partition("://")[0].lower() in _WEBHOOKS:
        _post(address, message_id, document)
    else:
        _notify(address, title, text, str(document["data"]["severity"]), resolved=document["type"] == "alert.resolved")


def _parts(address: str) -> tuple[str, str, dict[str, str]] | None:
    """URL without its user, host and header fields of a webhook's address."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or any(not 0x20 < ord(letter) < 0x7F for letter in address):
        return None
    place = f"[{host}]" if ":" in host else host
    place += "" if port is None else f":{port}"
    query = f"?{parts.query}" if parts.query else ""
    fields = {}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        fields = urllib3.make_headers(basic_auth=user)
    return f"{_WEBHOOKS[parts.scheme]}://{place}{parts.path or '/'}{query}", host, dict(fields)


def _post(address: str, message_id: str, document: dict[str, Any]) -> None:
    parts = _parts(address)
    if parts is None:
        raise NotDelivered("the address is malformed")
    url, _, fields = parts
    headers = {**fields, "Content-Type": "application/json", "User-Agent": "sluice", "webhook-id": message_id}
    try:
        status = webhook.post(url, json.dumps(document).encode(), headers)
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise NotDelivered(_why(error)) from None
    if not 200 <= status < 300:
        raise NotDelivered(f"HTTP {status}")


def _why(error: Exception) -> str:
    """The error of a connection, without the address."""
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "the host name can't be resolved"
        case urllib3.exceptions.ConnectTimeoutError() | urllib3.exceptions.ReadTimeoutError():
            return "the server did not answer in time"
        case urllib3.exceptions.NewConnectionError():
            return "the server refused the connection"
        case urllib3.exceptions.SSLError():
            return "the TLS handshake failed"
    return type(error).__name__


def _notify(address: str, title: str, text: str, severity: str, *, resolved: bool) -> None:
    library = _library()
    service = library.Apprise()
    if not service.add(address):
        raise NotDelivered("no service knows this address")
    mood = "success" if resolved else _MOODS[severity]

    def notify() -> bool:
        # By the plugins themselves: the library's own call runs them in threads of a pool, which nothing interrupts.
        answers = [plugin.notify(body=text, title=title, notify_type=mood) for plugin in service]
        return all(answers)

    try:
        taken = APPRISE.within(address, notify)
    except TooSlow:
        raise NotDelivered("the service did not answer in time") from None
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        raise NotDelivered(type(error).__name__) from None
    if not taken:
        raise NotDelivered("the service did not accept it")


@cache
def _library() -> Any:
    """Imported when needed: it imports a hundred services."""
    import apprise

    quiet = logging.getLogger("apprise")
    quiet.addHandler(logging.NullHandler())
    quiet.setLevel(logging.CRITICAL + 1)
    quiet.propagate = False
    return apprise
