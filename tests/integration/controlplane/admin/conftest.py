from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from django.test import Client

from tests.browser.seed import PASSWORD, Day, make_day

SignIn = Callable[[str], Client]


@pytest.fixture
def day(db: None, valkey: redis.Redis) -> Day:
    from controlplane.admin.dashboard import forget

    forget()
    return make_day()


@pytest.fixture
def signed_in(day: Day) -> SignIn:
    def sign_in(username: str) -> Client:
        client = Client()
        assert client.login(username=username, password=PASSWORD)
        return client

    return sign_in
