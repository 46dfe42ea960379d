"""A mail server on a real socket: enough of SMTP (RFC 5321) to accept messages."""

from __future__ import annotations

import email
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.policy import default

END = b"."


class MailServer:
    """Accepts every message; `got` has them in order of arrival."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        mail_server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.say("220 here")
                for line in self.rfile:
                    word = line.strip().upper()
                    if word == b"DATA":
                        self.say("354 go on")
                        self.take()
                    elif word == b"QUIT":
                        self.say("221 bye")
                        return
                    self.say("250 fine")

            def say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

            def take(self) -> None:
                lines = []
                for line in self.rfile:
                    line = line.rstrip(b"\r\n")
                    if line == END:
                        break
                    lines.append(line[1:] if line.startswith(END) else line)
                mail_server.got.append(email.message_from_bytes(b"\r\n".join(lines), policy=default))

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    @property
    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for message in self.got]


@contextmanager
def receiving_mail() -> Iterator[MailServer]:
    """A mail server that listens."""
    mail_server = MailServer()
    thread = threading.Thread(target=mail_server.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield mail_server
    finally:
        mail_server.server.shutdown()
        thread.join()
        mail_server.server.server_close()
