#!/usr/bin/env python3
"""Real input: descriptions of Debian's packages as `http.request` jobs, one chat completion each.

    apt-cache dumpavail | bench/package_jobs.py --count 2000 > jobs.jsonl

Reads the format of dpkg's available file from standard input (or `--file`), writes JSONL for `manage.py submit`. Each
job asks for a summary of one package in one line; its cost is the estimate of the tokens that the call will use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator

ANSWER_TOKENS = 40


def packages(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Stanzas that have a description: `name`, `version`, `section`, `description` (whole, unfolded)."""
    fields: dict[str, str] = {}
    last = ""
    for line in [*lines, "\n"]:
        text = line.rstrip("\n")
        if not text:
            if {"Package", "Description"} <= fields.keys():
                yield {
                    "name": fields["Package"],
                    "version": fields.get("Version", ""),
                    "section": fields.get("Section", ""),
                    "description": fields["Description"],
                }
            fields, last = {}, ""
        elif text[0] in " \t":
            if last:
                fields[last] += "\n" + ("" if text.strip() == "." else text.strip())
        else:
            last, _, value = text.partition(":")
            fields[last] = value.strip()


def job(package: dict[str, str], pool: str, model: str) -> dict[str, object]:
    """One job of the contract's shape. Tokens are estimated at four characters each, as OpenAI's guide has it."""
    prompt = (
        f"Summarise the Debian package {package['name']} {package['version']} in one line.\n\n{package['description']}"
    )
    return {
        "type": "http.request",
        "payload": {
            "pool": pool,
            "method": "POST",
            "path": "/v1/chat/completions",
            "json": {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": ANSWER_TOKENS},
        },
        "cost": {"tokens": len(prompt) // 4 + ANSWER_TOKENS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="jobs at most (default 2000); 0: all")
    parser.add_argument("--file", type=argparse.FileType("r", encoding="utf-8", errors="replace"), default=sys.stdin)
    parser.add_argument("--pool", default="llm")
    parser.add_argument("--model", default="gpt-4o-mini")
    options = parser.parse_args()
    written = 0
    for package in packages(options.file):
        sys.stdout.write(json.dumps(job(package, options.pool, options.model), ensure_ascii=False) + "\n")
        written += 1
        if written == options.count:
            break
    sys.stderr.write(f"{written} jobs\n")


if __name__ == "__main__":
    main()
