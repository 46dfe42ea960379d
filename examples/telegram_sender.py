"""Send messages through a Telegram bot without exceeding its limits.

    sluice apply preset:telegram            # with TELEGRAM_BOT_TOKEN set: the pool and Telegram's limits
    SLUICE_KEY=sl_... python examples/telegram_sender.py --project demo 12345:Hello -100987:"Hello, group"

Telegram allows 30 messages a second per bot, one a second per chat and 20 a minute per group. The pool knows all three.
Each message carries its chat as the key `chat`, so it waits only for its own chat.
"""

from __future__ import annotations

import argparse

from client import call


def main() -> None:
    """Submit one job per message; print each job's id with its chat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="demo")
    parser.add_argument("--pool", default="telegram")
    parser.add_argument("messages", nargs="+", metavar="CHAT:TEXT")
    options = parser.parse_args()
    for message in options.messages:
        chat, _, text = message.partition(":")
        job = {
            "type": "http.request",
            "project": options.project,
            "queue": "notifications",
            "keys": {"chat": chat},
            "payload": {
                "pool": options.pool,
                "method": "POST",
                "path": "/sendMessage",
                "json": {"chat_id": chat, "text": text},
            },
        }
        print(chat, call("POST", "jobs", job)["id"], flush=True)


if __name__ == "__main__":
    main()
