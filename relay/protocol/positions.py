"""Where a client is in its streams, as a text that it gives back when it comes again; no I/O.

`1-5f3a.0c9d…-x8Kd0q69243e00.Tn2P_a69243dff`: the version, the number of the newest revision that it was told and the
store that numbers them, and for each stream a tag of six characters and up to which open time it was told what closed.
Numbers are hexadecimal. It names no run of a relay, so it holds after a restart, and at another relay.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from relay.core.errors import Code, RequestError
from relay.core.model import StreamKey
from relay.protocol.fields import Schema, shown

TAG_LENGTH = 6
MOST_STREAMS = 200
"""Those of a connection, and as many that it did not resume."""
LONGEST = 4096
"""More than the text of so many streams has."""
_REVISION, _STORE, _ENTRY = "[0-9a-f]{1,14}", "[0-9a-f]{0,16}", "[A-Za-z0-9_-]{6}[0-9a-f]{1,9}"
_ENTRIES = rf"(?:{_ENTRY}(?:\.{_ENTRY})*)?"
_WHOLE = re.compile(rf"1-(?:({_REVISION})\.({_STORE}))?-({_ENTRIES})")
SCHEMA: Schema = {
    "type": "string",
    "maxLength": LONGEST,
    "pattern": rf"^(1-({_REVISION}\.{_STORE})?-{_ENTRIES})?$",
}
"""Of such a text, and of none at all: both say where to go on."""


class ToldRevision(NamedTuple):
    """The number of a revision, and what names the store that counts them: to another one it means nothing."""

    number: int
    store: str = ""


class Position(NamedTuple):
    """Up to which open time a client was told what closed, by tags of streams, and up to which revision."""

    told_to: Mapping[str, int]
    revision: ToldRevision | None

    def without(self, tag: str) -> "Position | None":
        """Return it without a stream, None if nothing is left."""
        left = {name: time for name, time in self.told_to.items() if name != tag}
        return self._replace(told_to=left) if left else None


@lru_cache(16_384)
def tag_of(provider: str, key: StreamKey) -> str:
    """Return what stands for a stream."""
    name = f"{provider}:{key.symbol}@{key.interval}".encode()
    return base64.urlsafe_b64encode(blake2b(name, digest_size=6).digest())[:TAG_LENGTH].decode()


def written(told_to: Iterable[tuple[str, int]], revision: ToldRevision | None) -> bytes:
    """Write a position: of more streams than a text may have, the first ones."""
    entries = ".".join([f"{tag}{time:x}" for tag, time in islice(told_to, MOST_STREAMS)])
    return f"1-{'' if revision is None else f'{revision.number:x}.{revision.store}'}-{entries}".encode()


def parse_position(text: str) -> Position:
    """Read what `written` wrote. Raises `RequestError` (invalid_request)."""
    found = _WHOLE.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        raise RequestError(
            Code.INVALID_REQUEST,
            f"Last-Event-ID {shown(text)} is not an id that this relay sends; leave it out to begin again",
        )
    number, store, entries = found.groups()
    told_to = {one[:TAG_LENGTH]: int(one[TAG_LENGTH:], 16) for one in entries.split(".") if one}
    return Position(told_to, ToldRevision(int(number, 16), store) if number else None)
