"""Accounts that fail: a storm of errors, providers that echo credentials, and a Redis that is emptied."""

from __future__ import annotations

import base64
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.acceptance.pools import BOT, SECRET, Pools, credential
from tests.support.instance import wait_until


def test_failing_accounts_fail_no_job_are_explained_and_recover_but_for_the_invalid_key(pools: Pools) -> None:
    product = pools.product
    stormy = [credential("stormy", number) for number in range(1, 5)]
    begin = datetime.now(UTC).isoformat()
    pools.sim.faults(
        {"key": stormy[0], "status": 429, "headers": {"retry-after": "2"}},
        {"key": stormy[1], "status": 503},
        {"key": stormy[2], "latency": 1.5},
        {"invalid_key": stormy[3]},
    )
    jobs: list[dict[str, Any]] = []

    def all_met() -> bool:
        """Whether each of the failing accounts was called often enough to show its fault."""
        jobs.extend(product.wait_for_end(*[pools.submit("stormy") for _ in range(40)], seconds=150))
        errors = [product.account(f"stormy-{number}")["errors"] for number in (1, 2, 4)]
        return bool(errors[0] and errors[1].get("server", 0) >= 2 and errors[2])

    try:
        wait_until(all_met, 150, lambda: str(product.get("pools/stormy")))
    finally:
        pools.sim.faults({"invalid_key": stormy[3]})
    assert {job["status"] for job in jobs} == {"completed"}
    used = Counter(job["attempts"][-1]["account"].rpartition("/")[2] for job in jobs)
    assert used["stormy-5"] + used["stormy-6"] >= 0.6 * len(jobs), used
    refused, dead, slow, invalid = (product.account(f"stormy-{number}") for number in range(1, 5))
    assert refused["errors"]["rate_limited"] >= 1 and refused["last_error"]
    assert dead["errors"]["server"] >= 1 and dead["last_error"]
    assert (slow["errors"], slow["state"]) == ({}, "available") and slow["latency"] > 1.4
    assert invalid["state"] == "disabled" and invalid["why"] and invalid["last_error"]
    assert 1 <= invalid["errors"]["auth"] <= 10, "calls that had already started"

    def recovered() -> bool:
        product.wait_for_end(*[pools.submit("stormy") for _ in range(4)])
        return [product.account(f"stormy-{number}")["state"] for number in range(1, 7)] == [
            "disabled" if number == 4 else "available" for number in range(1, 7)
        ]

    wait_until(recovered, 60, lambda: str(product.get("pools/stormy")))
    last = pools.submit("stormy")
    product.wait_for_end(last)
    assert_events_of_the_storm(pools, begin, last)
    assert_alerts_of_the_storm(pools, begin)

    # Another key enables it again, and the alert ends.
    pools.sim.faults()
    product.post(f"accounts/{product.account('stormy-4')['id']}/enable", {"reason": "paid"})
    wait_until(lambda: ("alert.resolved", "stormy/stormy-4") in pools.notices(), 60, lambda: str(pools.notices()))


def assert_events_of_the_storm(pools: Pools, begin: str, last: str) -> None:
    events = pools.events(since=begin)
    wait_until(lambda: "job.completed" in events.names(job=last), 60)

    def counts() -> Counter[tuple[str, str]]:
        return Counter(
            (one.name, one.data["account"]) for one in events.with_members(pool="stormy") if "account" in one.data
        )

    def complete() -> bool:
        """Each process sends its own events, so a breaker's may come after those of a later job."""
        found = counts()
        opened, probed = found["breaker.opened", "stormy-2"], found["breaker.half_open", "stormy-2"]
        return bool(opened == probed and found["breaker.closed", "stormy-2"] and found["account.disabled", "stormy-4"])

    wait_until(complete, 30, lambda: str(counts()))
    assert counts()["account.disabled", "stormy-4"] == 1, "one event"
    assert counts()["breaker.opened", "stormy-2"] >= 1 and counts()["breaker.closed", "stormy-2"] == 1
    assert SECRET not in str(events.received)


def assert_alerts_of_the_storm(pools: Pools, begin: str) -> None:
    def alerts(kind: str, subject: str) -> list[dict[str, Any]]:
        rows = pools.product.results("alerts", limit=500)
        return [row for row in rows if (row["kind"], row["subject"]) == (kind, subject)]

    (refused_key,) = alerts("account_auth_failed", "stormy/stormy-4")
    assert refused_key["resolved_at"] is None and refused_key["severity"] == "critical"
    wait_until(lambda: all(row["resolved_at"] for row in alerts("breaker_opened", "stormy/stormy-2")), 60)
    wait_until(lambda: ("alert.resolved", "stormy/stormy-2") in pools.notices(), 30, lambda: str(pools.notices()))
    sent = pools.notices()
    assert sent.count(("alert.raised", "stormy/stormy-4")) == 1, "one alert, sent once"
    assert ("alert.resolved", "stormy/stormy-4") not in sent
    assert sent.index(("alert.raised", "stormy/stormy-2")) < sent.index(("alert.resolved", "stormy/stormy-2"))
    events = pools.events(since=begin)
    wait_until(lambda: events.named("alert.resolved", subject="stormy/stormy-2"), 30)
    raised = [one.data["kind"] for one in events.with_members(subject="stormy/stormy-4")]
    assert raised == ["account_auth_failed"]


def forms(secret: str) -> list[bytes]:
    """A secret as it may be written: plain, or in base64 at any offset."""
    found = [secret.encode()]
    for offset in range(3):
        coded = base64.b64encode(b"x" * offset + secret.encode()).decode().rstrip("=")
        found.append(coded[4:-4].encode())
    return found


def test_no_secret_shows_anywhere_even_if_the_provider_echoes_it(pools: Pools) -> None:
    product = pools.product
    echo = {"body": '{"error": {"message": "no: {credential}", "code": "{credential}"}}'}
    uids: list[str] = []
    instance = pools.deployment.instance

    def settled() -> bool:
        return all(product.job(uid)["status"] in ("completed", "dead", "rate_limited") for uid in uids)

    def enable_all() -> None:
        for name in ("echoing-1", "echoing-2", "bot"):
            row = product.account(name)
            product.call("POST", f"accounts/{row['id']}/enable", {"reason": "test"})

    for status in (200, 400, 401, 403, 429, 500):
        owns = [credential("echoing", number) for number in (1, 2)]
        pools.sim.faults(*({"key": own, "status": status, "headers": {"x-echo": own}, **echo} for own in owns))
        uids.append(pools.submit("echoing", queue="outside-once"))
        pools.bot.faults({"status": status, **echo})
        body = {"pool": "telegram", "method": "POST", "path": "/sendMessage", "json": {"chat_id": 1, "text": "x"}}
        uids.append(pools.submit("telegram", queue="outside-once", payload=body, keys={"chat": str(status)}))
        wait_until(settled, 60, lambda: str([product.job(uid) for uid in uids[-2:]]))
        enable_all()  # a job whose credential is refused tries the other account too
        lease = product.lease("echoing", max_wait=5)
        own = credential("echoing", int(lease["account"][-1]))
        product.settle(lease, status, body=echo["body"].replace("{credential}", own), headers={"retry-after": "1"})
        enable_all()
    pools.sim.faults()
    pools.bot.faults()
    assert {product.job(uid)["status"] for uid in uids} >= {"completed", "dead"}, "calls were made and failed"

    places: dict[str, bytes] = {}
    for path in instance.data_dir.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    assert any("log" in name and places[name] for name in places)
    places["output of up"] = "\n".join(instance.lines).encode()
    places["export"] = instance.manage("export").stdout.encode()
    with instance.redis() as client:
        for key in client.scan_iter(count=1000):
            places[f"redis {key!r}"] = key + (client.dump(key) or b"") + _plain(client, key)
    paths = [
        "alerts",
        "accounts",
        "pools",
        "jobs?limit=500",
        "queue/requests",
        "dead-letters",
        "dead-letters/groups",
        "audit",
    ]
    paths += [f"pools/{name}/explain" for name in ("echoing", "telegram")]
    paths += [f"jobs/{uid}{more}" for uid in uids for more in ("", "/timeline", "/explain")]
    for path in paths:
        answer = product.call("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        places[path] = answer.content
    places["metrics"] = httpx.get(f"{instance.url}/metrics").content
    places |= admin_pages(pools)
    masked = [name for name, data in places.items() if b"[redacted]" in data and name.startswith("jobs/")]
    assert masked, "a provider did echo a credential"
    needles = [form for secret in (SECRET, BOT) for form in forms(secret)]
    leaks = [
        (name, data[max(at - 80, 0) : at + 20])
        for name, data in places.items()
        for needle in needles
        if (at := data.find(needle)) >= 0
    ]
    assert leaks == []


def _plain(client: Any, key: bytes) -> bytes:
    """A key's value as it is, since a dump may be compressed."""
    readers = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
    }
    kind = client.type(key)
    return repr(readers[kind]()).encode() if kind in readers else b""


def admin_pages(pools: Pools) -> dict[str, bytes]:
    """The admin's lists of accounts, jobs and audit records, and each page that they link to."""
    instance = pools.deployment.instance
    known = instance.credentials
    pages: dict[str, bytes] = {}
    with httpx.Client(base_url=instance.url, follow_redirects=True, timeout=30) as browser:
        form = browser.get("/admin/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        assert token
        fields = {
            "csrfmiddlewaretoken": token[1],
            "username": known["admin_username"],
            "password": known["admin_password"],
            "next": "/admin/",
        }
        assert browser.post("/admin/login/", data=fields, headers={"Referer": instance.url}).status_code == 200
        front = browser.get("/admin/")
        assert "/admin/logout/" in front.text, "logged in"
        lists = sorted(set(re.findall(r'href="(/admin/(?:quotas|queues|controlplane)/[a-z]+/)"', front.text)))
        assert any("account" in path for path in lists) and any("job" in path for path in lists), lists
        for path in ["/admin/", *lists]:
            page = browser.get(path)
            assert page.status_code == 200, path
            pages[path] = page.content
            for link in sorted(set(re.findall(rf'href="({path}[^"/?]+/change/)', page.text)))[:12]:
                pages[link] = browser.get(link).content
                if found := re.fullmatch(r"/admin/quotas/account/(\d+)/change/", link):
                    live = f"/admin/live/account?pk={found[1]}"
                    pages[live] = browser.get(live).content
                    assert b"Last rate-limit headers" in pages[live]
    assert sum("/account/" in path for path in pages) > 2
    return pages


def test_what_is_known_of_accounts_outlives_redis(pools: Pools) -> None:
    product = pools.product
    lease = product.lease("lasting")
    product.settle(lease, 429, headers={"retry-after": "600"})
    query = "SELECT state FROM quotas_account WHERE name = ?"

    def stored() -> bool:
        return pools.deployment.rows(query, lease["account"]) == [("cooling_down",)]

    wait_until(stored, 30, "the flusher")
    pools.deployment.instance.flushall()
    wait_until(lambda: product.account(lease["account"])["state"] == "cooling_down", 30)
    assert {product.lease("lasting")["account"] for _ in range(4)} == {"lasting-1", "lasting-2"} - {lease["account"]}
