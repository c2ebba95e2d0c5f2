"""How people write a relay's address and a stream; what there is only the relay knows."""

from yarl import URL

from relay.client.errors import BadArgument
from relay.core.model import StreamKey
from relay.protocol.fields import shown

DEFAULT_URL = "http://127.0.0.1:8000"
"""Where a relay listens unless told otherwise."""

_LONGEST_NAME = 100
"""A symbol has at most 48 characters, and the relay takes 4,096 bytes a request."""


def parse_url(text: str) -> URL:
    """Return the address of a relay: `http` or `https`, without user, query and fragment. Raises `BadArgument`."""
    if not isinstance(text, str):
        raise BadArgument(f"an address is a text such as {DEFAULT_URL!r}, not a {type(text).__name__}")
    text = text.strip()
    try:
        url = URL(text if "://" in text else f"http://{text}")
        scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
        if scheme in {"http", "https"} and url.host:
            return url.with_scheme(scheme).with_user(None).with_query(None).with_fragment(None)
    except ValueError:
        pass
    raise BadArgument(f"{shown(text)} is not an address such as {DEFAULT_URL}")


def parse_stream(name: str | StreamKey) -> StreamKey:
    """Split `btcusdt@1H` into BTCUSDT and 1h; whether there is such a stream only the relay knows.

    Raises `BadArgument`.
    """
    if isinstance(name, StreamKey):
        symbol, interval = name
        text = f"{symbol}@{interval}"
    elif isinstance(name, str):
        symbol, _, interval = name.rpartition("@")
        text = name
    else:
        raise BadArgument(
            f"a stream is one text such as 'BTCUSDT@1m', not a {type(name).__name__}; unpack lists with *"
        )
    if not (isinstance(symbol, str) and isinstance(interval, str) and symbol and interval and is_sendable(text)):
        raise BadArgument(f"stream {shown(text)} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m")
    return folded(StreamKey(symbol, interval))


def folded(key: StreamKey) -> StreamKey:
    """Return the one spelling of all that differ in case: a relay names a provider in lower case, for instance."""
    symbol, interval = key
    # 1m is a minute and 1M a month; all other letters mean the same in both cases.
    return StreamKey(symbol.upper(), interval if interval.endswith("M") else interval.lower())


def is_sendable(name: str) -> bool:
    """Say whether a name can be sent: half of a pair of surrogates is no text, and a request has its bound."""
    return len(name) <= _LONGEST_NAME and not any("\ud800" <= char <= "\udfff" for char in name)
