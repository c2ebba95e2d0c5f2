"""How people write a relay's address and a stream; what there is only the relay knows."""

from yarl import URL

from relay.model import StreamKey

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
    """Split `BTCUSDT@1m`; whether there is such a stream only the relay knows. Raises ValueError."""
    if isinstance(name, StreamKey):
        return name
    symbol, _, interval = name.rpartition("@")
    if not symbol or not interval:
        raise ValueError(f"stream {name!r} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m")
    return StreamKey(symbol.upper(), interval)


def folded(key: StreamKey) -> tuple[str, str]:
    """Return what two spellings of one stream have in common."""
    # 1m is a minute and 1M a month; all other letters mean the same in both cases.
    interval = key.interval if key.interval.endswith("M") else key.interval.lower()
    return key.symbol.casefold(), interval
