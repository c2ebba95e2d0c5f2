"""Addresses and stream names as people write them."""

from typing import Any

import pytest

from relay.client import BadArgument, StreamKey, parse_stream, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("wss://relay.example/prices/", "https://relay.example/prices/"),
        ("https://user:pass@relay.example?token=x#y", "https://relay.example"),
    ],
)
def test_url_is_an_address_without_secrets(text: str, url: str) -> None:
    assert str(parse_url(text)).removesuffix("/") == url.removesuffix("/")


@pytest.mark.parametrize("text", ["", "ftp://relay.example", "http://", "http://host:99999", "http://[::1", "\ud800"])
def test_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match=r"is not an address such as http://127\.0\.0\.1:8000"):
        parse_url(text)


@pytest.mark.parametrize("text", ["BTCUSDT", "@1m", "BTCUSDT@", "", "\ud800@1m", "BTCUSDT@\udfff", f"{'X' * 5000}@1m"])
def test_stream_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SYMBOL@INTERVAL"):
        parse_stream(text)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("btcusdt@1m", ("BTCUSDT", "1m")),
        ("btcusdt@1M", ("BTCUSDT", "1M")),
        ("eur/usd@4H", ("EUR/USD", "4h")),
        ("demo:a@b@1D", ("DEMO:A@B", "1d")),
        (StreamKey("btcusdt", "1W"), ("BTCUSDT", "1w")),
    ],
)
def test_spellings_of_a_stream_are_one_name(name: str | StreamKey, key: tuple[str, str]) -> None:
    assert parse_stream(name) == key
    assert parse_stream(parse_stream(name)) == key


@pytest.mark.parametrize("name", [["BTCUSDT@1m"], ("BTCUSDT", "1m"), None])
def test_list_of_streams_is_refused_with_a_hint(name: Any) -> None:
    with pytest.raises(BadArgument, match=r"'BTCUSDT@1m'.*unpack lists with \*"):
        parse_stream(name)
