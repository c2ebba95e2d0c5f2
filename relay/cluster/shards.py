"""Into which shards the streams of a provider fall, and which relay is the favourite for each; pure."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from relay.core.model import StreamKey

MOST_SHARDS = 64
_FORM = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,2})\.([0-9]{1,2})\.([0-9a-f]{1,16})", re.ASCII)


class Shard(NamedTuple):
    """One of the `parts` of a provider's streams, as it is written in subjects: `binance.4.0.5f0c12ab`.

    Relays that are set to other counts, or to other `terms`, have other shards: they share none of this provider with
    each other.
    """

    provider: str
    parts: int
    number: int
    terms: str

    def __str__(self) -> str:
        return f"{self.provider}.{self.parts}.{self.number}.{self.terms}"


def parse_shard(text: object) -> Shard | None:
    """Return the shard that a text names, None if it names none."""
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    shard = Shard(found[1], int(found[2]), int(found[3]), found[4])
    return shard if shard.number < shard.parts <= MOST_SHARDS and str(shard) == text else None


def shard_number(key: StreamKey, count: int) -> int:
    """Return in which of `count` shards a stream is: the same in every relay."""
    return crc32(str(key).encode()) % count if count > 1 else 0


def favourite(shard: Shard, relays: Iterable[str]) -> str | None:
    """Return who of the relays is to have a shard, None of none.

    All relays that see the same others agree, and one that comes or goes moves only its own shards.
    """
    return max(relays, key=lambda relay: (_weight(shard, relay), relay), default=None)


def _weight(shard: Shard, relay: str) -> bytes:
    return blake2b(f"{shard}|{relay}".encode(), digest_size=8).digest()
