"""Redis keys: the only place where they are built.

All of an instance's limiter keys share one hash tag, so that one script may touch any of them on a cluster:

    {sl}:l:<limit id>:<generation>:<algorithm>:<unit>:<hash of partition and subject>    a counter
    {sl}:i:<limit id>:<generation>:<algorithm>:<unit>                                    its recent subjects
    {sl}:r:<reservation>   {sl}:t:<hash of token>                                        reservation, token

What users say (subjects, tokens, odd ids) is in a key only as a hash, made of its bytes as they are: no Unicode
normalisation, no separator that could be forged.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from hashlib import blake2b

from quotas.engine.types import Limit

ALGORITHM_CODES = {
    "sliding_window": "sw",
    "sliding_window_counter": "sc",
    "token_bucket": "tb",
    "fixed_window": "fw",
    "calendar": "ca",
    "concurrency": "cc",
}
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
SHOWN = 256
"""Characters of a subject that the index keeps for display."""


def digest(*parts: str | bytes) -> str:
    """22 URL-safe characters (128 bits) for the parts in this order; each is preceded by its length."""
    encoded = [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]
    whole = b"".join([b"%d:%b" % (len(data), data) for data in encoded])
    return base64.urlsafe_b64encode(blake2b(whole, digest_size=16).digest())[:22].decode()


@lru_cache(maxsize=4096)
def plain(part: str) -> str:
    """An identifier of ours as it is, anything else as a hash that no plain identifier can equal."""
    return part if PLAIN.fullmatch(part) else f"~{digest(part)}"


@lru_cache(maxsize=65536)
def subject(partition: str, subject: str, space: str = "") -> tuple[bytes, bytes]:
    """(hash, index member) of a limit's subject; `space` is part of the hash alone.

    An index lists a subject as its hash, the length of the partition, the partition, what is shown of the subject.
    """
    hashed = digest(partition, subject, *([space] if space else ())).encode()
    shown = partition[:SHOWN]
    text = f"{len(shown)}:{shown}{subject[:SHOWN]}"
    return hashed, hashed + text.encode("utf-8", "surrogatepass")


def parse_member(member: bytes) -> tuple[bytes, str, str]:
    """(hash, partition, shown subject) of an index member."""
    size, _, rest = member[22:].decode("utf-8", "surrogatepass").partition(":")
    return member[:22], rest[: int(size)], rest[int(size) :]


class Keys:
    """Keys under one prefix. Two instances that share a Redis have different prefixes."""

    __slots__ = ("policy", "tag")

    def __init__(self, prefix: str = "sl") -> None:
        if not PLAIN.fullmatch(prefix):
            raise ValueError(f"a key prefix is 1 to 64 of A-Z a-z 0-9 _ . -, not {prefix!r}")
        self.tag = tag = "{" + prefix + "}"

        @lru_cache(maxsize=16384)
        def policy(limit_id: str, generation: int, algorithm: str, unit: str) -> tuple[bytes, bytes]:
            rest = f"{plain(limit_id)}:{generation}:{ALGORITHM_CODES[algorithm]}:{plain(unit)}"
            return f"{tag}:l:{rest}:".encode(), f"{tag}:i:{rest}".encode()

        self.policy = policy
        """(what a policy's counters begin with, its index)"""

    @staticmethod
    @lru_cache(maxsize=256)
    def of(prefix: str) -> Keys:
        """The one instance of a prefix: what is packed for it is of use to all that have the same prefix."""
        return Keys(prefix)

    def counter(self, limit: Limit) -> bytes:
        return self.counter_of(limit, subject(limit.partition, limit.subject, limit.space)[0])

    def counter_of(self, limit: Limit, hashed: bytes) -> bytes:
        """The counter of the limit's policy for a subject that is known by its hash."""
        return self.policy(limit.id, limit.generation, limit.algorithm, limit.unit)[0] + hashed

    def index(self, limit: Limit) -> bytes:
        return self.policy(limit.id, limit.generation, limit.algorithm, limit.unit)[1]

    def of_policy(self, limit_id: str) -> tuple[str, str]:
        """Patterns of all counters and all indexes that a policy ever had."""
        return f"{self.tag}:l:{plain(limit_id)}:*", f"{self.tag}:i:{plain(limit_id)}:*"

    def index_of(self, counter: bytes) -> bytes:
        """The index that a counter's subject is listed in."""
        policy = counter[: counter.rindex(b":")]
        begin = len(self.tag) + 1
        return policy[:begin] + b"i" + policy[begin + 1 :]

    @staticmethod
    def unit(unit: str) -> str:
        """A unit as keys spell it."""
        return plain(unit)

    @staticmethod
    def unit_of(counter: bytes) -> str:
        """The unit that a counter's key says."""
        return counter.split(b":")[5].decode()

    @staticmethod
    def limit_of(counter: bytes) -> str:
        """The limit's id that the counter's key says; an odd one as its hash."""
        return counter.split(b":")[2].decode()

    def reservation(self, reservation: str) -> bytes:
        # An id is used twice, and would push others out of the cache of `plain`.
        part = reservation if PLAIN.fullmatch(reservation) else plain(reservation)
        return f"{self.tag}:r:{part}".encode()

    def admission_token(self, token: str) -> bytes:
        # Not by `plain`, whose cache is for what is used again.
        return f"{self.tag}:a:t:{token if PLAIN.fullmatch(token) else '~' + digest(token)}".encode()

    def token(self, token: str) -> bytes:
        return f"{self.tag}:t:{digest(token)}".encode()

    def key(self, kind: str, *parts: str) -> bytes:
        """A key of another kind (`{sl}:<kind>:<part>:...`); odd parts are hashed."""
        return ":".join((self.tag, kind, *map(plain, parts))).encode()
