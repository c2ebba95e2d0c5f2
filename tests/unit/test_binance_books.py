"""Binance's streams of order books: which questions they answer, and what of them is an order book."""

from typing import Any

import orjson
import pytest

from providers.binance.books import BookCodec, live_book
from relay import Hosts, NativeUpdate, StreamKey

KEY = StreamKey("BTCUSDT", "depth20@100ms")
STREAM = "btcusdt@depth20@100ms"
BOOK = {"lastUpdateId": 160, "bids": [["0.0024", "10"], ["0.0023", "7"]], "asks": [["0.0026", "100"]]}
PATH = "/api/v3/depth"


def codec() -> BookCodec:
    made = BookCodec(Hosts(["ws://one"]))
    (message,) = made.subscribe([KEY])
    assert orjson.loads(message) == {"method": "SUBSCRIBE", "params": [STREAM], "id": 1}
    return made


def event(book: Any, stream: str = STREAM) -> bytes:
    return orjson.dumps({"stream": stream, "data": book})


def test_levels_are_those_asked_for_in_the_words_of_the_exchange() -> None:
    live = live_book(PATH, {"symbol": "BTCUSDT", "limit": "1"})
    assert live is not None
    assert (live.key, live.weight) == (KEY, 5)
    assert live.body(BOOK) == b'{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}'


@pytest.mark.parametrize("limit", ["0", "21", "100", "", "x", "-5", "٥", "5.0"])
def test_other_numbers_of_levels_have_no_stream(limit: str) -> None:
    assert live_book(PATH, {"symbol": "BTCUSDT", "limit": limit}) is None


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (PATH, {"symbol": "BTCUSDT"}),
        (PATH, {"symbol": "BTCUSDT", "limit": "5", "symbolStatus": "TRADING"}),
        ("/api/v3/ticker/bookTicker", {"symbol": "BTCUSDT", "limit": "5"}),
    ],
)
def test_other_questions_have_no_stream(path: str, query: dict[str, str]) -> None:
    assert live_book(path, query) is None


def test_a_book_that_is_older_than_the_one_before_is_left_out_until_it_is_subscribed_anew() -> None:
    made = codec()
    assert made.decode(event(BOOK)) == (NativeUpdate(KEY, BOOK),)
    older = {**BOOK, "lastUpdateId": 159}
    assert made.decode(event(older)) == ()
    made.unsubscribe([KEY])
    assert made.decode(event(BOOK)) == ()
    made.subscribe([KEY])
    assert made.decode(event(older)) == (NativeUpdate(KEY, older),)


@pytest.mark.parametrize(
    "change",
    [
        {"lastUpdateId": "160"},
        {"bids": None},
        {"asks": [["0.0026"]]},
        {"asks": [["0.0026", 100]]},
        {"bids": [["0.0024", "10", []]]},
    ],
)
def test_what_is_no_book_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="order book"):
        codec().decode(event({**BOOK, **change}))
