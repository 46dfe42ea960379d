"""What operators do with accounts: each action changes one account's live state, or its pool's, in one step."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from quotas.engine.account_state import AccountState
from quotas.engine.accounts.packed_pool import account_state_key, pool_state_key
from quotas.engine.keys import Keys
from quotas.engine.redis.scripts import load
from quotas.engine.redis.transport import Transport
from quotas.engine.types import PoolSpec


class AccountActions:
    """The actions of `Accounts`. `clock` as there."""

    def __init__(self, keys: Keys, transport: Transport, clock: Callable[[], int] | None) -> None:
        self.keys = keys
        self.transport = transport
        self.clock = clock
        self._action = load("account_action")

    def clear_cooldown(self, account_id: str) -> bool:
        """End an account's cooldown. True if it had one."""
        return self._do(account_id, "clear_cooldown")

    def clear_pool_cooldown(self, pool: PoolSpec) -> bool:
        """End the cooldown that a whole pool has since its accounts were refused together. True if it had one."""
        return self._do_at(pool_state_key(self.keys, pool.id), "clear_cooldown")

    def trip(self, account_id: str, open_for: float = 60.0, why: str = "operator") -> bool:
        """Open an account's breaker for `open_for` seconds."""
        return self._do(account_id, "trip", struct.pack("<d", round(open_for * 1e6)) + why.encode("utf-8", "replace"))

    def close(self, account_id: str) -> bool:
        """Close an account's breaker. Calls that began before count for it no more. True if it was open."""
        return self._do(account_id, "close")

    def disable(self, account_id: str, why: str = "operator") -> bool:
        """Take an account out until it is enabled again. True if it was in."""
        return self._do(account_id, "disable", why.encode("utf-8", "replace"))

    def enable(self, account_id: str) -> bool:
        """Put a disabled account back in. True if it was out."""
        return self._do(account_id, "enable")

    def renew(self, account_id: str) -> bool:
        """The account has another credential: delete what was learned with the last one; calls in flight say nothing about it."""
        return self._do(account_id, "renew")

    def refuse(self, account_id: str) -> bool:
        """Disable an account whose credential was refused through another one. True if it was in."""
        return self._do(account_id, "refuse")

    def cool(self, account_id: str, seconds: float, why: str) -> bool:
        """Let an account cool down: its credential was refused through another one. A longer cooldown stays."""
        return self._do(account_id, "cool", struct.pack("<d", round(seconds * 1e6)) + why.encode("utf-8", "replace"))

    def restore(self, states: Iterable[AccountState]) -> int:
        """Rebuild what was lost with the server's memory from stored states; what is live wins. How many changed.

        `until` of each state counts from now.
        """
        changed = 0
        for state in states:
            left = state.until or 0.0
            figures = struct.pack(
                "<dddB",
                left * 1e6 if state.state == "cooling_down" else -1,
                (left or 0.001) * 1e6 if state.state in ("open", "half_open") else -1,
                state.health if state.health < 1 else -1,
                state.state == "disabled",
            )
            changed += self._do(state.id, "restore", figures + (state.why or "restored").encode("utf-8", "replace"))
        return changed

    def _do(self, account_id: str, action: str, argument: bytes = b"") -> bool:
        return self._do_at(account_state_key(self.keys, account_id), action, argument)

    def _do_at(self, key: bytes, action: str, argument: bytes = b"") -> bool:
        now = b"" if self.clock is None else b"%d" % self.clock()
        return bool(self.transport.run(self._action, [key], [now, action, argument]))
