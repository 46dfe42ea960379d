"""Live events of a running instance, received in a thread."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.instance import Instance


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: dict[str, Any]
    """The event's own fields, without the envelope."""


class EventStream:
    """Subscribes at once and collects what comes, from after the event `since` on. `key` as for `Instance.client`."""

    def __init__(self, instance: Instance, key: str | None = None, since: str = "") -> None:
        self.received: list[Event] = []
        self.ended = threading.Event()
        self.complete = False
        """Whether the stream came to its proper end: a server that is killed leaves it cut off."""
        self._subscribed = threading.Event()
        self._client = instance.client(key)
        self._since = since
        threading.Thread(target=self._receive, daemon=True).start()
        assert self._subscribed.wait(20)

    def _receive(self) -> None:
        query = {"since": self._since} if self._since else {}
        try:
            with self._client.stream("GET", "/api/v1/events", params=query, timeout=60) as response:
                assert response.status_code == 200
                fields: dict[str, str] = {}
                for line in response.iter_lines():
                    if line == ": listening":
                        self._subscribed.set()
                    name, _, value = line.partition(": ")
                    if line:
                        fields[name] = value
                    elif "data" in fields:
                        self.received.append(Event(fields["id"], fields["event"], json.loads(fields["data"])["data"]))
                        fields = {}
                self.complete = True
        except httpx.HTTPError:
            pass  # the server went away, or the test closed the connection
        finally:
            self.ended.set()

    def named(self, name: str, **members: Any) -> list[Event]:
        """Events of one name whose data has these members."""
        return [event for event in self.with_members(**members) if event.name == name]

    def with_members(self, **members: Any) -> list[Event]:
        return [event for event in self.received if members.items() <= event.data.items()]

    def names(self, **members: Any) -> list[str]:
        return [event.name for event in self.with_members(**members)]
