"""How people write a relay's address and a stream; what there is only the relay knows."""

from yarl import URL

from relay.core.model import StreamKey

DEFAULT_URL = "http://127.0.0.1:8000"


def parse_url(text: str) -> URL:
    """Return the address of a relay: `http` or `https`, without user, query and fragment. Raises ValueError."""
    text = text.strip()
    url = URL(text if "://" in text else f"http://{text}")
    scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
    if scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{text!r} is not an address such as {DEFAULT_URL}")
    return url.with_scheme(scheme).with_user(None).with_query(None).with_fragment(None)


def parse_stream(name: str | StreamKey) -> StreamKey:
    """Split `btcusdt@1H` into BTCUSDT and 1h; whether there is such a stream only the relay knows.

    Raises ValueError, and TypeError for what is no name at all.
    """
    if isinstance(name, StreamKey):
        symbol, interval = name
    elif isinstance(name, str):
        symbol, _, interval = name.rpartition("@")
    else:
        raise TypeError(f"a stream is one text such as 'BTCUSDT@1m', not a {type(name).__name__}; unpack lists with *")
    if not symbol or not interval:
        raise ValueError(f"stream {str(name)!r} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m")
    # 1m is a minute and 1M a month; all other letters mean the same in both cases.
    return StreamKey(symbol.upper(), interval if interval.endswith("M") else interval.lower())
