"""A simulator in a process of its own, called over real sockets."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]


class Simulator:
    """`with Simulator("--rpm", "60") as sim:` gives a running provider on a free port."""

    def __init__(self, *flags: str) -> None:
        command = [sys.executable, "-m", "controlplane.simulator", "--port", "0", "--die-with-parent", *flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("ready: http://127.0.0.1:"), line or self.process.communicate()[1]
        self.base_url = line.removeprefix("ready: ")
        self.port = int(self.base_url.rpartition(":")[2])

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Stop it and give its exit code."""
        self.process.send_signal(signum)
        code = self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def call(
        self, method: str, path: str, body: Any = None, key: str = "k1", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, header fields (lower case) and parsed body; http.client's errors pass through."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if key:
                sent["authorization"] = f"Bearer {key}"
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            text = response.read()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()
        finally:
            connection.close()

    def chat(self, prompt: str = "Hello there, this is a prompt.", key: str = "k1", **headers: str) -> Any:
        """One chat completion."""
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], "max_tokens": 20}
        return self.call("POST", "/v1/chat/completions", body, key, **headers)

    def stats(self) -> dict[str, Any]:
        """`GET /_stats`."""
        return self.call("GET", "/_stats")[2]

    def faults(self, *faults: dict[str, Any]) -> None:
        """Set these faults and no others."""
        status, _, answer = self.call("POST", "/_faults", list(faults))
        assert status == 200, answer
