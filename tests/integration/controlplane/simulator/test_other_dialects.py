"""The other dialects' limits, headers and refusals, from outside."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime

from tests.integration.controlplane.simulator.process import Simulator

MESSAGE = {"model": "claude", "max_tokens": 20, "messages": [{"role": "user", "content": "Say something about this."}]}


def test_anthropic():
    with Simulator("--dialect", "anthropic", "--rpm", "60", "--burst", "1", "--tpm", "6000") as sim:
        status, headers, body = sim.call("POST", "/v1/messages", MESSAGE, key="", x_api_key="a1")
        assert status == 200
        assert body["usage"]["output_tokens"] > 0
        assert headers["anthropic-ratelimit-requests-limit"] == "60"
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert 0 <= (reset - parsedate_to_datetime(headers["date"])).total_seconds() <= 2
        status, headers, body = sim.call("POST", "/v1/messages", MESSAGE, key="", x_api_key="a1")
        assert (status, headers["retry-after"], body["error"]["type"]) == (429, "1", "rate_limit_error")
        assert sim.call("POST", "/v1/messages", {"model": "claude"}, key="", x_api_key="a1")[0] == 400


def test_telegram_per_chat_per_group_and_overall():
    with Simulator("--dialect", "telegram", "--rpm", "60", "--burst", "30") as sim:

        def send(chat, bot="1:AA"):
            return sim.call("POST", f"/bot{bot}/sendMessage", {"chat_id": chat, "text": "hi"}, key="")

        assert send(1)[0] == 200
        status, _, body = send(1)
        assert (status, body["parameters"]) == (429, {"retry_after": 1})
        assert body["description"] == "Too Many Requests: retry after 1"
        assert send(2)[2]["result"]["chat"]["type"] == "private"
        assert send(-100)[2]["result"]["chat"]["type"] == "supergroup"
        answers = [send(chat)[0] for chat in range(10, 60)]
        assert answers.count(200) >= 27
        assert 429 in answers
        assert send(3, bot="2:BB")[0] == 200
        assert sim.call("POST", "/bot1:AA/sendMessage", {"text": "hi"}, key="")[0] == 400
        assert sim.call("GET", "/bot2:BB/getMe", key="")[2]["ok"] is True
        assert sim.call("GET", "/elsewhere", key="")[0] == 401
        assert set(sim.stats()["by_key"]) >= {"1:AA", "2:BB"}


def test_a_telegram_token_with_its_colon_is_a_key():
    with Simulator("--dialect", "telegram", "--key", "1:AA:rpm=60,burst=1") as sim:
        first = sim.call("POST", "/bot1:AA/sendMessage", {"chat_id": 1, "text": "hi"}, key="")
        second = sim.call("POST", "/bot1:AA/sendMessage", {"chat_id": 2, "text": "hi"}, key="")
        assert (first[0], second[0]) == (200, 429)


def test_github_steps_and_refuses_with_403():
    with Simulator("--dialect", "github", "--rpm", "2") as sim:
        answers = [sim.call("GET", "/user") for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 200, 403]
        assert [headers["x-ratelimit-remaining"] for _, headers, _ in answers] == ["1", "0", "0"]
        reset = int(answers[0][1]["x-ratelimit-reset"])
        assert 55 <= reset - parsedate_to_datetime(answers[0][1]["date"]).timestamp() <= 62
        assert "API rate limit exceeded" in answers[2][2]["message"]


def test_generic_speaks_the_ietf_fields():
    with Simulator("--dialect", "generic", "--rpm", "2", "--tpm", "100") as sim:
        status, headers, _ = sim.call("POST", "/anything", {"a": 1})
        assert status == 200
        assert headers["ratelimit-policy"] == '"requests";q=2;w=60, "tokens";q=100;w=60;qu="tokens"'
        assert headers["ratelimit"].startswith('"requests";r=1;t=30, "tokens";r=98;t=')
        sim.call("GET", "/anything")
        status, headers, body = sim.call("GET", "/anything")
        assert (status, headers["retry-after"]) == (429, "30")
        assert headers["content-type"] == "application/problem+json"
        assert body["violated-policies"] == ["requests"]
