"""Addresses and stream names as people write them."""

import pytest

from relay.client import (
    parse_stream,
    parse_url,
)


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


@pytest.mark.parametrize("text", ["", "ftp://relay.example", "http://", "http://host:99999"])
def test_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


@pytest.mark.parametrize("text", ["BTCUSDT", "@1m", "BTCUSDT@", ""])
def test_stream_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SYMBOL@INTERVAL"):
        parse_stream(text)
