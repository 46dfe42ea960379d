"""`manage.py up`: it starts, stops, replaces what dies, and continues after a restart."""

from __future__ import annotations

import os
import signal
import stat

import httpx
import pytest

from tests.support.instance import Instance, running, wait_until
from tests.support.migrated import SQLITE, copy_sqlite
from tests.support.postgres import run_postgres
from tests.support.product import Product
from tests.support.shapes import Deployment
from tests.support.valkey import Server


@pytest.fixture(scope="module")
def instance(embedded: Deployment) -> Instance:
    return embedded.instance


def test_ready_means_that_all_parts_are_there(instance: Instance) -> None:
    answer = instance.readyz()
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"sql": "ok", "redis": "ok", "dispatcher": "ok", "workers": "ok"}
    assert [len(instance.pids(name)) for name in ("valkey", "dispatcher", "worker-io", "worker-cpu")] == [1, 1, 2, 1]
    assert httpx.get(f"{instance.url}/healthz").json() == {"status": "ok"}


def test_probes_come_by_address_and_only_read(instance: Instance) -> None:
    assert httpx.get(f"{instance.url}/healthz", headers={"Host": "10.1.2.3"}).status_code == 200
    assert httpx.get(f"{instance.url}/admin/login/", headers={"Host": "10.1.2.3"}).status_code == 400
    assert httpx.post(f"{instance.url}/readyz").status_code == 405


def test_first_credentials_are_private_and_work(instance: Instance) -> None:
    path = instance.data_dir / "credentials.txt"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(instance.credentials) == {"admin_username", "admin_password", "platform_key"}
    assert instance.credentials["platform_key"].startswith("sl_")
    assert f"platform_key: {instance.credentials['platform_key']}" in instance.lines
    with Product.of(instance) as product, Product.of(instance, "") as anonymous:
        product.get("queues")
        assert anonymous.call("GET", "queues").status_code == 401
    for log in (instance.data_dir / "logs").iterdir():
        assert instance.credentials["platform_key"] not in log.read_text()
        assert instance.credentials["admin_password"] not in log.read_text()


def test_no_tcp_port_but_the_web_servers(instance: Instance) -> None:
    with instance.redis() as client:
        config = client.config_get("*")
    assert config["port"] == "0"
    assert (config["appendonly"], config["appendfsync"]) == ("yes", "everysec")
    assert config["maxmemory-policy"] == "noeviction"


def test_metrics_are_in_the_format_of_prometheus(instance: Instance) -> None:
    answer = httpx.get(f"{instance.url}/metrics")
    assert answer.status_code == 200
    assert 'sluice_queue_depth{priority="high",queue="batch"} 0.0' in answer.text
    assert "sluice_workers{" in answer.text
    scrapes = [line for line in answer.text.splitlines() if line.startswith("sluice_scrape_ok{")]
    assert scrapes
    assert all(line.endswith(" 1.0") for line in scrapes)


def test_a_second_instance_on_the_same_data_is_refused(instance: Instance) -> None:
    other = Instance(environ={"SLUICE_DATA_DIR": str(instance.data_dir)})
    try:
        other.spawn()
        assert other.process is not None
        assert other.process.wait(60) == 1
        wait_until(lambda: "choose another --data-dir" in other.output, 5, lambda: other.output)
        assert instance.readyz().status_code == 200
    finally:
        other.remove()


def test_a_busy_port_is_an_error_before_anything_starts(instance: Instance) -> None:
    other = Instance()
    other.port = instance.port
    try:
        other.spawn()
        assert other.process is not None
        assert other.process.wait(60) == 1
        wait_until(lambda: f"Port {instance.port}" in other.output, 5, lambda: other.output)
        assert not (other.data_dir / "valkey.sock").exists()
        assert not (other.data_dir / "sluice.sqlite3").exists()
    finally:
        other.remove()


@pytest.mark.parametrize("name", ["web", "dispatcher", "worker-io", "worker-cpu", "valkey"])
def test_a_killed_child_is_started_again(instance: Instance, name: str) -> None:
    before = instance.pids(name)
    killed = instance.kill_child(name)

    def replaced() -> bool:
        now = instance.pids(name)
        return killed not in now and len(now) >= len(before)

    wait_until(replaced, 30, lambda: f"{name}: {before} -> {instance.pids(name)}\n{instance.output}")
    wait_until(instance.is_serving, 60, lambda: instance.output)


@pytest.mark.timeout(180)
def test_a_worker_that_dies_again_and_again_is_named_and_ends_no_other_process(instance: Instance) -> None:
    web = instance.pids("web")
    for _ in range(7):
        wait_until(lambda: bool(instance.pids("worker-cpu")), 30, lambda: instance.output)
        (pid,) = instance.pids("worker-cpu")
        instance.kill_child("worker-cpu")
        wait_until(lambda pid=pid: pid not in instance.pids("worker-cpu"), 10)
    probe = instance.readyz()
    assert probe.status_code == 503
    assert probe.json()["failing"] == ["processes"]
    assert "worker-cpu-1 has died" in probe.json()["detail"]
    examined = instance.manage("doctor", check=False)
    assert examined.returncode == 1
    assert "worker-cpu-1 has died" in examined.stdout + examined.stderr
    assert instance.pids("web") == web
    with Product.of(instance) as product:
        product.get("queues")
    wait_until(instance.is_serving, 60, lambda: instance.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_and_the_next_start_continues(fresh: Deployment, number: int) -> None:
    with fresh.instance.redis() as client:
        client.set("kept", "yes")
    first = fresh.instance.credentials
    assert fresh.instance.stop(number) == 0
    fresh.instance.no_survivors(0.5)
    fresh.instance.start()
    with fresh.instance.redis() as client:
        assert client.get("kept") == b"yes"
    assert fresh.instance.credentials == first
    assert first["platform_key"] not in fresh.instance.output, "the first credentials are printed once"
    fresh.product.get("queues")


def test_a_killed_parent_leaves_no_process_and_the_next_start_continues(fresh: Deployment) -> None:
    with fresh.instance.redis() as client:
        client.set("kept", "yes")
    fresh.instance.kill()
    fresh.instance.no_survivors()
    fresh.instance.start()
    with fresh.instance.redis() as client:
        assert client.get("kept") == b"yes"


def test_a_long_data_dir_gets_a_short_runtime_dir() -> None:
    long = Instance()
    deep = long.data_dir / ("d" * 60) / ("e" * 60)
    long.environ["SLUICE_DATA_DIR"] = str(deep)
    deep.mkdir(parents=True)
    copy_sqlite(deep / SQLITE)
    try:
        long.start()
        assert not (deep / "valkey.sock").exists()
        assert long.readyz().status_code == 200
        assert long.stop() == 0
    finally:
        long.remove()


@pytest.mark.postgres
def test_with_a_postgresql_and_redis_of_its_own(redis7_server: Server) -> None:
    with run_postgres() as database:
        environ = {"DATABASE_URL": database, "REDIS_URL": f"redis://127.0.0.1:{redis7_server.port}/3"}
        with running(environ=environ) as instance:
            assert instance.readyz().json()["checks"]["sql"] == "ok"
            assert instance.pids("valkey") == []
            assert not (instance.data_dir / "sluice.sqlite3").exists()
            with Product.of(instance) as product:
                product.get("queues")
            assert instance.stop() == 0
            instance.no_survivors(0.5)
            assert os.path.exists(instance.data_dir / "credentials.txt")
