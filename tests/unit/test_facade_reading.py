"""How the facade for Binance's programs reads requests, writes candles, and says errors."""

from typing import Any

import orjson
import pytest
from multidict import MultiDict

from relay.core.errors import (
    BadAnswer,
    Code,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    RequestError,
    StoreError,
    UnknownSymbol,
)
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.written_numbers import written_candle
from relay.protocol.frames import text_of
from relay.storage.chunks import encode, joined
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.binance import reading
from relay.web.facades.binance.kline_events import KLINE_EVENTS
from relay.web.facades.binance.kline_rows import KLINE_ROWS, in_microseconds
from relay.web.facades.binance.refusals import BinanceRefusal, answer_of
from relay.web.facades.binance.stream_names import NameKind, stream_name
from relay.web.facades.facade import FacadeTiming, without_token

TEXTS = (
    "1.00000000",
    "4.00000000",
    "0.50000000",
    "2.00000000",
    "10.00000000",
    "20.00000000",
    "4.00000000",
    "8.00000000",
)
KEY = StreamKey("BTCUSDT", "1m")


def candle(minute: int, rest: str = "", ids: tuple[int, int] | None = None) -> Candle:
    return written_candle(60 * minute, TEXTS, 3, rest, ids)


def row(minute: int, closes: int | None = None, ignored: str = "0") -> list[Any]:
    closes = 60_000 * minute + 59_999 if closes is None else closes
    return [60_000 * minute, *TEXTS[:5], closes, TEXTS[5], 3, *TEXTS[6:], ignored]


def refused(number: int, *arguments: Any, read: Any) -> str:
    with pytest.raises(BinanceRefusal) as refusal:
        read(*arguments)
    assert (refusal.value.number, refusal.value.status) == (number, 400)
    return refusal.value.message


# -- rows and events ---------------------------------------------------------------------------------------------------


def test_rows_are_written_with_their_texts_and_cut_at_any_place() -> None:
    rows = KLINE_ROWS["1m"]
    chunk = encode([candle(1), candle(10), candle(100, "6012345"), candle(1000, "60059999,17.5")], rows)
    truth = [row(1), row(10), row(100, 6_012_345), row(1000, 60_059_999, "17.5")]
    assert orjson.loads(b"[%b]" % chunk.text) == truth
    assert rows.bare_times(chunk) == []
    for first in range(5):
        for last in range(first, 5):
            assert orjson.loads(b"[%b]" % chunk.part(first, last).text) == truth[first:last]
    assert orjson.loads(b"[%b]" % chunk.within(600, 60_000, 1, newest=True).text) == truth[2:3]
    assert joined([chunk.part(0, 2), chunk.part(2, 4)]) == chunk
    assert orjson.loads(in_microseconds(b"[%b]" % chunk.text))[0][0:7:6] == [60_000_000, 119_999_999]


def test_a_candle_without_texts_is_marked_and_named() -> None:
    rows = KLINE_ROWS["1m"]
    chunk = encode([candle(1), Candle(120, 1.0, 1.0, 1.0, 1.0), candle(3)], rows)
    assert chunk.bare_times() == [120]
    assert chunk.part(2, 3).bare_times() == []
    known = encode([candle(4)], rows)
    assert [known.is_full, joined([known, known]).is_full, joined([known, chunk]).is_full] == [True, True, False]
    assert joined([known, chunk]).bare_times() == [120]


def test_rows_of_very_different_lengths_are_cut_where_they_begin() -> None:
    wide = [f"1.{'0' * 25}"] * len(TEXTS)
    candles = [written_candle(60 * number, wide if number < 100 else TEXTS, 3) for number in range(1, 201)]
    chunk = encode(candles, KLINE_ROWS["1m"])
    truth = orjson.loads(b"[%b]" % chunk.text)
    for first in range(0, 200, 9):
        assert orjson.loads(b"[%b]" % chunk.part(first, 200).text) == truth[first:]


def test_months_and_weeks_close_before_the_next_one() -> None:
    for interval, opened, closes in (("1M", 1_706_745_600, 1_709_251_199_999), ("1w", 345_600, 950_399_999)):
        chunk = encode([written_candle(opened, TEXTS, 3)], KLINE_ROWS[interval])
        assert orjson.loads(b"[%b]" % chunk.text)[0][6] == closes


def test_an_event_has_all_fields_in_their_order() -> None:
    update = PriceUpdate(KEY, candle(1, ids=(7, 9)), True, 61_000)
    event = orjson.loads(text_of(KLINE_EVENTS[False, False].frame(update, 0) or b""))
    assert "".join(event["k"]) == "tTsifLochlvnxqVQB"
    assert event == {
        "e": "kline", "E": 61_000, "s": "BTCUSDT",
        "k": {"t": 60_000, "T": 119_999, "s": "BTCUSDT", "i": "1m", "f": 7, "L": 9, "o": TEXTS[0], "c": TEXTS[3],
              "h": TEXTS[1], "l": TEXTS[2], "v": TEXTS[4], "n": 3, "x": True, "q": TEXTS[5], "V": TEXTS[6],
              "Q": TEXTS[7], "B": "0"},
    }  # fmt: skip
    micro = orjson.loads(text_of(KLINE_EVENTS[True, True].frame(update, 0) or b""))
    assert micro["stream"] == "btcusdt@kline_1m"
    assert [micro["data"]["E"], micro["data"]["k"]["t"], micro["data"]["k"]["T"]] == [
        61_000_000,
        60_000_000,
        119_999_999,
    ]


def test_a_close_that_was_fetched_later_is_of_now_and_of_trades_that_were_not_seen() -> None:
    update = PriceUpdate(KEY, candle(1), True, None, is_backfilled=True)
    event = orjson.loads(text_of(KLINE_EVENTS[False, False].frame(update, 77) or b""))
    assert (event["E"], event["k"]["f"], event["k"]["L"]) == (77, -1, -1)
    assert KLINE_EVENTS[False, False].frame(PriceUpdate(KEY, Candle(60, 1.0, 1.0, 1.0, 1.0)), 0) is None


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "symbol", "interval"),
    [
        ("btcusdt@kline_1m", NameKind.KLINES, "BTCUSDT", "1m"),
        ("币安人生usdt@kline_1M", NameKind.KLINES, "币安人生USDT", "1M"),
        ("BTCUSDT@kline_1m", NameKind.KLINES, "", "1m"),
        ("btcusdt@kline_1d@+08:00", NameKind.OTHER, "", ""),
        ("btcusdt@depth20@100ms", NameKind.OTHER, "", ""),
        ("!miniTicker@arr@1000ms", NameKind.OTHER, "", ""),
        ("btcusdt@kline_7m", NameKind.NOTHING, "", ""),
        ("btcusdt", NameKind.NOTHING, "", ""),
        ("@kline_1m", NameKind.NOTHING, "", ""),
        ("btc usdt@kline_1m", NameKind.NOTHING, "", ""),
        ("a" * 101, NameKind.NOTHING, "", ""),
        (7, NameKind.NOTHING, "", ""),
    ],
)
def test_stream_names(text: object, kind: NameKind, symbol: str, interval: str) -> None:
    assert stream_name(text) == (kind, symbol, interval)


@pytest.mark.parametrize(
    ("path", "rest"), [("/t/x/api/v3/ping", "/api/v3/ping"), ("/api/v3", "/api/v3"), ("/t/x", "/"), ("/t/", "/")]
)
def test_a_token_is_no_part_of_a_path(path: str, rest: str) -> None:
    assert without_token(path) == rest


# -- parameters --------------------------------------------------------------------------------------------------------


def test_names_are_checked_in_the_exchanges_order() -> None:
    known = ("symbol", "limit")
    twice = MultiDict([("symbol", "A"), ("symbol", "A")])
    assert "Duplicate" in refused(-1101, twice, known, known[:1], read=reading.check_names)
    assert "'symbol'" in refused(-1102, {"x": "1"}, known, known[:1], read=reading.check_names)
    assert "'symbol'" in refused(-1102, {"symbol": ""}, known, known[:1], read=reading.check_names)
    assert "read '1'" in refused(-1104, {"symbol": "A", "x": "1"}, known, known[:1], read=reading.check_names)
    assert "received '1'" in refused(-1101, {"x": "1"}, (), read=reading.check_names)
    reading.check_names({"symbol": "A", "limit": "1"}, known, known[:1])


def test_symbols() -> None:
    assert reading.symbol_of("币安人生USDT") == "币安人生USDT"
    for text in ("btcusdt", "", "A/B", "A" * 51):
        refused(-1100, text, read=reading.symbol_of)
    assert reading.symbols_of('["A","B"]') == ["A", "B"]
    for text in ("A", "[]", "[1]", "{}"):
        refused(-1100, text, read=reading.symbols_of)
    refused(-1151, '["A","A"]', read=reading.symbols_of)


def test_times_are_rounded_into_the_range() -> None:
    for text, first, last in (("1500", 2, 1), ("2000", 2, 2), ("1700000000000001", 1_700_000_001, 1_700_000_000)):
        assert reading.first_second({"t": text}, "t") == first
        assert reading.last_second({"t": text}, "t") == last
    assert reading.first_second({}, "t") is reading.last_second({}, "t") is None
    for text in ("-1", "1.5", "", "1" * 21):
        refused(-1100, {"t": text}, "t", read=reading.first_second)


def test_zones() -> None:
    minutes = {"0": 0, "8": 480, "-1:00": -60, "05:45": 345, "+8": 480, "-12": -720, "14:00": 840}
    assert {text: reading.zone_ms({"timeZone": text}) // 60_000 for text in minutes} == minutes
    assert reading.zone_ms({}) == 0
    for text in ("15", "-12:01", "", "UTC", "8:0"):
        refused(-1130, {"timeZone": text}, read=reading.zone_ms)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "number"),
    [
        (BinanceRefusal(-1121, "Invalid symbol."), 400, -1121),
        (RateLimited("the budget is used up", 12.5), 429, -1003),
        (UnknownSymbol("X"), 400, -1121),
        (ProviderTimeout("late"), 504, -1007),
        (ProviderUnavailable("away"), 503, -1001),
        (BadAnswer("garbage"), 502, -1001),
        (StoreError("full"), 503, -1001),
        (RequestError(Code.RATE_LIMITED, "more than 1", retry_after=3), 429, -1003),
        (RequestError(Code.UNKNOWN_SYMBOL, "X"), 400, -1121),
        (RequestError(Code.UNSUPPORTED_INTERVAL, "X"), 400, -1120),
        (RequestError(Code.UNAUTHORIZED, "X"), 401, -2015),
        (RequestError(Code.FORBIDDEN, "X"), 403, -1002),
        (RequestError(Code.PROVIDER_UNAVAILABLE, "X", retry_after=9), 503, -1001),
        (RequestError(Code.INVALID_REQUEST, "X"), 400, -1000),
        (KeyError("X"), 500, -1000),
    ],
)
def test_errors_of_the_relay_in_the_exchanges_codes(error: Exception, status: int, number: int) -> None:
    answer = answer_of(error, {"X-MBX-USED-WEIGHT-1M": "7"})
    assert answer.status == status
    assert orjson.loads(answer.body)["code"] == number  # type: ignore[arg-type]
    assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "7"
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


def test_what_is_counted_and_kept() -> None:
    counts = FacadeCounts("programs")
    counts.weight_asked, counts.weight = 10, 4
    assert counts.weight_saved == 6
    counts.weight = 20
    assert counts.weight_saved == 0
    assert [FacadeTiming().kept_s(interval) for interval in ("1s", "5m", "1d")] == [60, 900, 12 * 3600]
