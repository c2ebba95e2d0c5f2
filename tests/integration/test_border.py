"""What comes in from a provider and makes no sense: it costs itself, and nothing else is touched by it."""

import asyncio
import itertools
import math
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import BUILTIN
from providers.twelve_data.answers import KeyRefused, read_series
from providers.twelve_data.forex import ALWAYS
from relay import (
    BadAnswer,
    Candle,
    ExtendedCandle,
    PriceUpdate,
    ProviderInfo,
    StreamKey,
    Watchlist,
    decimal,
    decimals,
    hookimpl,
    is_widened,
    read_rows,
    written_candle,
)
from relay.app import PROVIDERS, STORE
from relay.core.clock import Clock
from relay.core.model import extend, widened
from relay.plugins.validation import CandleValidator
from relay.storage.inspect import overview, reading
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.sandbox import Sandbox
from tests.support.supervised_provider import A, Scripted, rig_of

NO_NUMBERS = (
    *("1_00", " 100 ", " 1", "1 ", "1\n", "١٠٠", "１", "1e308", "1e5", "1E5", "NaN", "Infinity", "true", "null", "[1]"),
    *("-5", "-0", "+1", "0x10", "0x1", "", ".", "1.", ".5", "1..5", "1.2.3", "007", "00.5", "1,5", "1,5,", "9" * 400),
)
MINUTE = StreamKey("BTCUSDT", "1m")
T = 1_764_000_000


def border(asset_class: str = "crypto", *, is_utc_grid: bool = False) -> CandleValidator:
    intervals = ("1s", "1m", "15m", "1h", "4h", "1d", "3d", "1w", "1M")
    return CandleValidator(ProviderInfo("demo", 1, "Demo", (asset_class,), intervals, is_utc_grid=is_utc_grid))


# ---- how much there may be ---------------------------------------------------------------------------------------


def test_more_rows_than_any_provider_gives_are_refused_with_the_bound() -> None:
    with pytest.raises(BadAnswer, match=r"the answer has 20,001 rows, more than the limit of 20,000"):
        read_rows([None] * 20_001, "1m", lambda row: 0, lambda row, time: Candle(time, 1.0, 1.0, 1.0, 1.0))


def test_more_rows_than_twelve_data_ever_gives_are_refused_with_the_bound() -> None:
    assert read_series({"values": [{}] * 5001}, "1m", ALWAYS) == KeyRefused(
        0, "the answer has 5,001 rows, more than the limit of 5,000"
    )


# ---- numbers and open times -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_only_python_takes_for_a_number_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        decimal(text)
    for texts in (("1", text, "2"), (text,), ("1", text), (text, "1")):
        with pytest.raises(ValueError, match="not a decimal number"):
            list(decimals(texts))


@pytest.mark.parametrize("value", [None, 1, 1.5, b"1", ["1"]])
def test_what_is_no_text_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="not a decimal number"):
        decimal(value)
    with pytest.raises(ValueError, match="not a decimal number"):
        list(decimals((value,)))


def test_plain_numbers_are_read_exactly() -> None:
    assert decimal("0.07310000") == 0.0731
    assert list(decimals(("10437.32000000", "0", "123456789012345"))) == [10437.32, 0.0, 123456789012345.0]
    assert [type(number) for number in decimals(("0", "7", "0.5"))] == [float, float, float]
    assert list(decimals(())) == []


@given(st.lists(st.from_regex(r"(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?", fullmatch=True), max_size=5))
def test_several_numbers_are_read_as_one_by_one(texts: list[str]) -> None:
    assert list(decimals(texts)) == [decimal(text) for text in texts] == [float(text) for text in texts]


@given(st.lists(st.text("0123456789.,-+eE _١", max_size=6), min_size=1, max_size=3))
def test_several_numbers_are_refused_as_one_by_one(texts: list[str]) -> None:
    def read(how: Callable[[], Iterable[float]]) -> list[float] | None:
        try:
            return list(how())
        except ValueError:
            return None

    assert read(lambda: decimals(texts)) == read(lambda: map(decimal, texts))


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [0.0, -5.0, math.nan, math.inf, 1e308])
def test_a_price_of_a_market_is_finite_and_above_zero(name: str, value: float) -> None:
    candle = Candle(T, **(dict.fromkeys(("open", "high", "low", "close"), 1.0) | {name: value}))
    assert border().fault_of_candle(candle, "1m") is not None
    assert border().past([candle], "1m", T)[0].time == T
    assert math.isnan(border().past([candle], "1m", T)[0].close)


def test_a_market_of_another_kind_may_have_prices_of_zero_and_below() -> None:
    candle = Candle(T, -1.0, 0.0, -2.0, -1.0)
    assert border("power").fault_of_candle(candle, "1m") is None
    assert border("forex").fault_of_candle(candle, "1m") == "a price is not above zero"


@pytest.mark.parametrize(
    ("interval", "off_s", "is_utc_grid", "is_open_time"),
    [
        ("1m", 3, False, False),
        ("15m", 60, False, False),
        ("1h", 1800, False, True),
        ("1h", 3, False, False),
        ("4h", 3600, False, True),
        ("1d", 36_000, False, True),
        ("1h", 1800, True, False),
        ("4h", 3600, True, False),
        ("1d", 36_000, True, False),
        ("3d", 86_400, True, True),
        ("1w", 86_400, True, False),
        ("1w", 6 * 86_400, True, True),
        ("1w", 86_400, False, True),
        ("1M", 86_400, True, False),
        ("1M", 6 * 86_400, True, True),
    ],
)
def test_a_candle_opens_on_the_grid_of_its_interval(
    interval: str, off_s: int, is_utc_grid: bool, is_open_time: bool
) -> None:
    day = 1_764_028_800  # 2025-11-25 00:00 UTC
    fault = border(is_utc_grid=is_utc_grid).fault_of_candle(Candle(day + off_s, 1.0, 1.0, 1.0, 1.0), interval)
    assert (fault is None) == is_open_time


def test_an_update_that_is_out_by_a_little_is_widened_and_one_by_much_is_not() -> None:
    watchlist = Watchlist([MINUTE])
    little = PriceUpdate(MINUTE, Candle(T, 50_000.0, 50_010.0, 49_990.0, 50_010.01), is_closed=True)
    much = PriceUpdate(MINUTE, Candle(T, 50_000.0, 50_010.0, 49_990.0, 60_000.0), is_closed=True)
    repaired = border().repaired(little, watchlist)
    assert repaired is not None
    assert repaired.candle == Candle(T, 50_000.0, 50_010.01, 49_990.0, 50_010.01)
    assert border().repaired(much, watchlist) is None


GOOD = ExtendedCandle(T, 1.0, 1.0, 1.0, 1.0, 1.0, quote_volume=2.0, trades=3, taker_volume=0, taker_quote_volume=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quote_volume", -1.0),
        ("quote_volume", math.nan),
        ("quote_volume", "2.0"),
        ("taker_volume", math.inf),
        ("taker_quote_volume", 1e300),
        ("trades", 3.0),
        ("trades", True),
        ("trades", -1),
        ("written", ".x"),
        ("written", 8),
    ],
)
def test_bad_extras_are_named_and_cost_a_candle_only_those(name: str, value: object) -> None:
    judge, watchlist = border(), Watchlist([MINUTE])
    extras: Any = {**GOOD.extras._asdict(), name: value}
    candle = ExtendedCandle(*GOOD, **extras)
    fault = judge.fault_of_candle(candle, "1m")
    assert fault is not None
    assert fault.startswith(name)
    update = PriceUpdate(MINUTE, candle)
    assert judge.fault_of_update(update, watchlist) == f"{MINUTE}: {fault}"
    repaired = judge.repaired(update, watchlist)
    assert repaired is not None
    assert (repaired.candle, repaired.candle.extras) == (GOOD, None)
    assert next(one.extras for one in judge.past([candle, GOOD._replace(time=T + 60)], "1m", T + 60)) is None
    assert judge.bad_extras == fault


def test_good_extras_pass_also_where_takers_bought_more_than_all() -> None:
    judge, watchlist = border(), Watchlist([MINUTE])
    written = written_candle(T, ("1.0",) * 5 + ("2.0", "3.0", "4.0"), 0)
    for candle in (GOOD, written, ExtendedCandle(*GOOD), extend(GOOD, written.extras._replace(written=None))):
        assert judge.fault_of_update(PriceUpdate(MINUTE, candle), watchlist) is None
        assert judge.fault_of_candle(candle, "1m") is None
        assert judge.past([candle], "1m", T)[0] is candle


def test_extras_of_another_kind_are_named() -> None:
    candle = ExtendedCandle(*GOOD)
    candle.extras = {"trades": 3}  # type: ignore[assignment]  # as a plugin may
    assert border().fault_of_candle(candle, "1m") == "extras are dict, not CandleExtras"


# ---- rows -------------------------------------------------------------------------------------------------------


def rows_of(*rows: object, **options: bool) -> list[tuple[int, float]]:
    def time_of(row: Any) -> int:
        return int(row["t"])

    def candle_of(row: Any, at: int) -> Candle:
        price = decimal(row["p"])
        return Candle(at, price, price, price, price)

    read = read_rows(rows, "1m", time_of, candle_of, **options)
    return [((candle.time - T) // 60, candle.close) for candle in read]


def row(minute: object, price: object = "1") -> dict[str, object]:
    return {"t": T + 60 * minute if isinstance(minute, int) else minute, "p": price}


BAD = pytest.approx(math.nan, nan_ok=True)


def test_a_row_without_values_is_unreadable_and_the_others_are_read() -> None:
    assert rows_of(row(0), row(1, None), row(2)) == [(0, 1.0), (1, BAD), (2, 1.0)]
    assert rows_of(row(0), row(1, "0"), row(2)) == [(0, 1.0), (1, BAD), (2, 1.0)]


@pytest.mark.parametrize("time_", ["soon", None, T + 63])
def test_of_a_row_without_a_time_those_between_its_neighbours_are_unreadable(time_: object) -> None:
    assert rows_of(row(0), {"t": time_, "p": "1"}, row(2)) == [(0, 1.0), (1, BAD), (2, 1.0)]
    assert rows_of(row(0), row(1), {"t": time_, "p": "1"}) == [(0, 1.0), (1, 1.0), (2, BAD)]
    assert rows_of({"t": time_, "p": "1"}, row(1)) == [(0, BAD), (1, 1.0)]
    assert rows_of({"t": time_, "p": "1"}, row(1), is_newest_first=True) == [(1, 1.0), (2, BAD)]


def test_rows_out_of_order_are_put_in_order_and_those_that_come_twice_count_once() -> None:
    assert rows_of(row(2), row(0), row(1), row(1)) == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_two_rows_of_one_time_that_differ_are_unreadable_unless_the_newest_come_first() -> None:
    assert rows_of(row(0), row(1), row(1, "2")) == [(0, 1.0), (1, BAD)]
    assert rows_of(row(1), row(1, "2"), row(0), is_newest_first=True) == [(0, 1.0), (1, 1.0)]
    assert rows_of(row(1, None), row(1, "2")) == [(1, 2.0)]


@pytest.mark.parametrize("is_newest_first", [False, True])
@pytest.mark.parametrize("close", [1.1, 1.2])
def test_of_two_rows_of_one_time_the_one_stands_that_did_not_have_to_be_widened(
    close: float, is_newest_first: bool
) -> None:
    good, odd = Candle(T, 1.0, 1.2, 0.9, close), Candle(T, 1.0, 1.2, 0.9, 1.21)
    for rows in ([good, odd], [odd, good]):
        (read,) = read_rows(rows, "1m", lambda row: row.time, lambda row, _: row, is_newest_first=is_newest_first)
        assert (read, is_widened(read)) == (good, False)
    (read,) = read_rows([odd], "1m", lambda row: row.time, lambda row, _: row)
    assert (read, is_widened(read)) == (odd._replace(high=1.21), True)


def test_that_a_candle_had_to_be_widened_belongs_to_it_from_the_border_on() -> None:
    good, odd = Candle(T, 1.0, 1.2, 0.9, 1.1), Candle(T + 60, 1.0, 1.2, 0.9, 1.21)
    (known,) = read_rows([odd], "1m", lambda row: row.time, lambda row, _: row)
    for answer in ([good, odd], [good, known]):
        assert [is_widened(one) for one in border().past(answer, "1m", T + 3600)] == [False, True]
    repaired = border().repaired(PriceUpdate(MINUTE, odd, is_closed=True), Watchlist([MINUTE]))
    assert repaired is not None
    assert is_widened(repaired.candle)
    assert not is_widened(widened(good))


# ---- a relay ----------------------------------------------------------------------------------------------------


def kline(minute: int, close: str = "50001.00000000") -> list[object]:
    at = minute * 60_000
    prices = ["50000.00000000", "50010.00000000", "49990.00000000", close]
    return [at, *prices, "3.50000000", at + 59_999, "175000.1", 42, "1.7", "85000.0", "0"]


async def test_a_kline_that_is_out_by_a_tick_does_not_spoil_its_range(sandbox: Sandbox, relay_with: StartRelay) -> None:
    first = int(time.time()) // 60 - 100
    rows = [kline(first + number) for number in range(10)]
    rows[4] = kline(first + 4, "50010.01000000")
    sandbox.binance.serve_rows("BTCUSDT", "1m", rows)
    relay = await relay_with()
    answer = await relay.get(
        "history", symbol="BTCUSDT", interval="1m", start_time=first * 60, end_time=(first + 9) * 60
    )
    assert answer.status == 200
    candles = answer.body["candles"]
    assert [candle["time"] for candle in candles] == [(first + number) * 60 for number in range(10)]
    assert (candles[4]["high"], candles[4]["close"]) == (50_010.01, 50_010.01)


async def test_klines_of_another_interval_are_neither_served_nor_stored(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    hour = int(time.time()) // 3600 - 5
    sandbox.binance.serve_rows("BTCUSDT", "1h", [kline(hour * 60 + number) for number in range(60)])
    relay = await relay_with()
    answer = await relay.get(
        "history", symbol="BTCUSDT", interval="1h", start_time=hour * 3600, end_time=hour * 3600 + 3540
    )
    assert answer.status == 502
    assert await relay.app[STORE].streams() == []


def event(key: str, opened: int, stamp: float, *, price: str = "100", is_closed: bool = True, **fields: object) -> str:
    symbol, interval = key.split("@")
    k = {
        "t": opened * 1000, "T": opened * 1000 + 999, "s": symbol, "i": interval, "o": price, "c": price, "h": price,
        "l": price, "v": "1", "x": is_closed,
    }  # fmt: skip
    data = {"e": "kline", "E": int(stamp * 1000), "s": symbol, "k": k | fields}
    return orjson.dumps({"stream": f"{symbol.lower()}@kline_{interval}", "data": data}).decode()


async def test_stamps_of_one_symbol_from_the_future_touch_no_other_and_are_not_stored(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    name = str(tmp_path / "relay.db")
    relay = await relay_with(database=name)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    await client.update(symbol="BTCUSDT")
    await client.update(symbol="ETHUSDT")
    sandbox.binance.faults.mute("btcusdt@kline_1s")
    ahead = int(time.time()) + 7200
    sandbox.binance.play([event("BTCUSDT@1s", ahead + n, ahead + n + 1) for n in range(5)])
    state = await client.seen("status", symbol="BTCUSDT", status="stale")
    assert "future" in state["message"]
    # Others: what is live goes on over a lost connection, and the history of what nobody follows too.
    sandbox.binance.faults.drop()
    first = (await client.update(symbol="ETHUSDT", is_closed=True))["candle"]["time"]
    for number in range(1, 5):
        closed = await client.update(symbol="ETHUSDT", is_closed=True)
        assert closed["candle"]["time"] == first + number
    asked = int(time.time())
    answer = await relay.get("history", symbol="BNBUSDT", interval="1s", limit=5)
    assert answer.body["candles"][-1]["time"] >= asked - 2
    assert not [message for message in client.received if message["type"] == "gap"]
    assert all(message["candle"]["time"] < ahead for message in client.updates)
    await relay.close()
    with reading(name) as connection:
        assert verify(connection, overview(connection, name).streams, time.time()).faults == []
        (latest,) = connection.execute('SELECT max("end") FROM spans').fetchone()
    assert latest <= time.time() + 1


@pytest.mark.parametrize("wrong_by_s", [-7200.0, 7200.0])
async def test_a_relay_on_a_machine_with_a_wrong_clock_works(
    sandbox: Sandbox, relay_with: StartRelay, wrong_by_s: float
) -> None:
    relay = await relay_with(clock=Clock(wall=lambda: time.time() + wrong_by_s))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", bars=10)
    snapshot = await client.seen("snapshot")
    assert abs(snapshot["candles"][-1]["time"] - time.time()) < 10
    first = (await client.update(is_closed=True))["candle"]["time"]
    for number in range(1, 4):
        assert (await client.update(is_closed=True))["candle"]["time"] == first + number
    for symbol, interval in (("ETHUSDT", "1m"), ("EUR/USD", "1m")):
        answer = await relay.get("history", symbol=symbol, interval=interval, limit=5)
        assert abs(answer.body["candles"][-1]["time"] - time.time()) < 130
    assert not [message for message in client.received if message["type"] == "gap"]
    assert "stale" not in [message.get("status") for message in client.received]


async def test_an_event_that_names_another_symbol_is_not_told(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    await client.update(symbol="BTCUSDT")
    sandbox.binance.faults.mute("btcusdt@kline_1s")
    now = int(time.time())
    strange = event("ETHUSDT@1s", now, now, price="7", is_closed=False).replace("ethusdt@", "btcusdt@")
    minute = event("BTCUSDT@1s", now, now, price="7", is_closed=False, i="1m")
    other = event("BTCUSDT@1s", now, now, price="7", is_closed=False).replace('"s":"BTCUSDT","k"', '"s":"ETHUSDT","k"')
    sandbox.binance.play([strange, minute, other])
    for _ in range(5):
        await client.update(symbol="ETHUSDT")
    assert all(update["candle"]["close"] != 7.0 for update in client.updates)


async def test_a_closing_that_cannot_be_used_comes_from_history(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    await client.update(symbol="BTCUSDT", is_closed=True)
    sandbox.binance.faults.mute("btcusdt@kline_1s")
    muted_ms = sandbox.clock.now() * 1000
    # What was sent before it was muted came before this.
    await client.until(lambda message: message.get("symbol") == "ETHUSDT" and (message.get("ts_event") or 0) > muted_ms)
    series = relay.hub.streams["binance", StreamKey("BTCUSDT", "1s")].series
    assert series.last is not None
    opened = series.last.time + series.last_is_closed
    frames = [
        event("BTCUSDT@1s", opened, opened + 0.5, price="99", is_closed=False),
        event("BTCUSDT@1s", opened, opened + 1, price="1_00"),
        event("BTCUSDT@1s", opened + 1, opened + 1.5, price="99", is_closed=False),
    ]
    sandbox.binance.play(frames)
    while (closed := await client.update(symbol="BTCUSDT", is_closed=True))["candle"]["time"] < opened:
        pass
    assert (closed["candle"]["time"], closed["backfilled"]) == (opened, True)
    assert closed["candle"]["close"] not in (99.0, 100.0)


# ---- a database -------------------------------------------------------------------------------------------------


def spoil(name: str, now: int) -> None:
    """Write what a relay with a wrong time wrote: a span, a candle, and nothing between them and the last true one."""
    with sqlite3.connect(name) as connection:
        (stream,) = connection.execute("SELECT id FROM streams WHERE symbol = 'BTCUSDT' AND interval = '1m'").fetchone()
        connection.execute('UPDATE spans SET "end" = ? WHERE stream_id = ?', (now + 7200, stream))
        connection.execute(
            "INSERT INTO candles (stream_id, time, open, high, low, close, volume) VALUES (?, ?, 1, 1, 1, 1, 1)",
            (stream, (now + 7000) // 60 * 60),
        )
        connection.execute("UPDATE totals SET candles = candles + 1")
    connection.close()


async def test_what_a_database_claims_of_the_future_is_cut_when_it_is_read(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    name = str(tmp_path / "relay.db")
    relay = await relay_with(database=name)
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50)).status == 200
    await relay.close()
    now = int(time.time())
    with sqlite3.connect(name) as connection:
        # The newest candles are those that are missing.
        connection.execute("DELETE FROM candles WHERE time > ?", (now - 1200,))
        connection.execute("DELETE FROM chunks")
        connection.execute("UPDATE totals SET candles = (SELECT count(*) FROM candles)")
    connection.close()
    spoil(name, now)
    again = await relay_with(database=name)
    await eventually(lambda: sandbox.binance.requests)
    answer = await again.get("history", symbol="BTCUSDT", interval="1m", limit=50)
    times = [candle["time"] for candle in answer.body["candles"]]
    assert times == list(range(times[-1] - 49 * 60, times[-1] + 60, 60))
    assert times[-1] >= now // 60 * 60
    await again.close()
    with reading(name) as connection:
        assert verify(connection, overview(connection, name).streams, time.time()).faults == []


async def test_what_a_database_claims_of_the_future_is_cut_though_nobody_reads_it(
    relay_with: StartRelay, tmp_path: Path
) -> None:
    name = str(tmp_path / "relay.db")
    relay = await relay_with(database=name)
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50)).status == 200
    await relay.close()
    spoil(name, int(time.time()))
    await relay_with(database=name)

    def faults() -> list[object]:
        with reading(name) as connection:
            return [*verify(connection, overview(connection, name).streams, time.time()).faults]

    assert faults()
    await eventually(lambda: not faults())


async def test_entries_of_a_list_that_are_no_instruments_cost_only_themselves(
    sandbox: Sandbox, relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    def pair(base: str) -> dict[str, object]:
        return {"symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT"}

    pairs: list[object] = [pair(base) for base in ("BTC", "ETH", "BNB", *(f"T{number:03d}" for number in range(1, 13)))]
    sandbox.binance.add_symbols([f"T{number:03d}USDT" for number in range(1, 17)])
    bad = [
        {**pair("T013"), "baseAsset": None},
        {**pair("T014"), "symbol": None},
        {"symbol": "T015USDT"},
        None,
        7,
        "T016USDT",
    ]
    sandbox.binance.faults.answer_rest(200, orjson.dumps({"symbols": pairs + bad}), path="/api/v3/exchangeInfo")
    pairs_of_forex = ("EUR/USD", "GBP/USD", "USD/JPY")
    named = [*({"symbol": symbol} for symbol in pairs_of_forex), {"symbol": None}, {}, None, 7, "AUD/USD"]
    sandbox.twelve_data.faults.answer_rest(200, orjson.dumps({"data": named}), path="/forex_pairs")
    relay = await relay_with()
    for symbol, status in (("T001USDT", 200), ("EUR/USD", 200), ("T013USDT", 404), ("NONE", 404)):
        answer = await relay.get("history", symbol=symbol, interval="1m", limit=2)
        assert answer.status == status, symbol
    assert any("T013USDT" in record.message or "instrument" in record.message for record in caplog.records)


@pytest.mark.parametrize("ahead_s", [6.0, 20.0, 59.0])
async def test_stamps_a_little_ahead_that_others_contradict_are_not_told(
    sandbox: Sandbox, relay_with: StartRelay, ahead_s: float
) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    await client.update(symbol="BTCUSDT")
    await client.update(symbol="ETHUSDT")
    sandbox.binance.faults.mute("ethusdt@kline_1s")
    for _ in range(3):
        at = int(time.time() + ahead_s)
        sandbox.binance.play([event("ETHUSDT@1s", at, at + 1, price="7", is_closed=True)])
        await client.update(symbol="BTCUSDT", is_closed=True)
    assert all(update["candle"]["close"] != 7.0 for update in client.updates)
    sandbox.binance.faults.unmute()
    first = (await client.update(symbol="ETHUSDT", is_closed=True))["candle"]["time"]
    assert abs(first - time.time()) < 10


async def test_a_closing_before_the_end_of_its_candle_closes_nothing(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with()
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1h", bars=2)
    await client.update(symbol="BTCUSDT")
    now = time.time()
    hour = int(now) // 3600 * 3600
    sandbox.binance.inject("btcusdt@kline_1h", x=True, t=hour * 1000, E=round(now * 1000))
    await client.update(symbol="BTCUSDT")
    await client.update(symbol="BTCUSDT")
    assert not [update for update in client.updates if update["is_closed"] and update["candle"]["time"] == hour]
    answer = await relay.get("history", symbol="BTCUSDT", interval="1h", limit=2)
    assert (answer.body["candles"][-1]["time"], answer.body["last_is_closed"]) == (hour, False)


async def test_a_wrong_date_of_all_answers_closes_no_candle_and_silences_no_stream(
    sandbox: Sandbox, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aiohttp.web_response.rfc822_formatted_time", lambda: formatdate(time.time() + 7200, usegmt=True)
    )
    relay = await relay_with()
    answer = await relay.get("history", symbol="BTCUSDT", interval="1d", limit=2)
    assert answer.body["last_is_closed"] is False
    client = await relay.connect()
    await client.subscribe("SOLUSDT@1s")
    first = (await client.update(is_closed=True))["candle"]["time"]
    assert abs(first - time.time()) < 10
    for number in range(1, 4):
        assert (await client.update(is_closed=True))["candle"]["time"] == first + number


async def test_a_date_two_hours_behind_empties_no_answer_and_cuts_nothing_from_the_database(
    sandbox: Sandbox, relay_with: StartRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = str(tmp_path / "relay.db")
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "start_time": int(time.time()) - 1800}
    relay = await relay_with(database=name)
    before = (await relay.get("history", **query)).body["candles"]
    assert len(before) >= 30
    await relay.close()
    monkeypatch.setattr(
        "providers.sandbox.exchange.formatdate", lambda at, usegmt: formatdate(time.time() - 7200, usegmt=usegmt)
    )
    again = await relay_with(database=name)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        answer = await again.get("history", **(query | {"symbol": symbol}))
        times = [candle["time"] for candle in answer.body["candles"]]
        assert times == list(range(before[0]["time"], times[-1] + 60, 60)), symbol
        assert times[-1] >= before[-1]["time"]
    assert again.app[PROVIDERS]["binance"].clock.now() < time.time() - 7000
    await again.close()
    with reading(name) as connection:
        stored = connection.execute("SELECT count(*) FROM candles WHERE time >= ?", (before[0]["time"],)).fetchone()
    assert stored[0] >= len(before) - 1


# ---- prices that leap --------------------------------------------------------------------------------------------


class Saying(Scripted):
    """Says what it is told to, in one feed."""

    def __init__(self, asset_class: str, *prices: float) -> None:
        super().__init__(asset_classes=(asset_class,))
        candles = [Candle(T - T % 60 + 60 * n, price, price, price, price) for n, price in enumerate(prices)]
        self.updates = [PriceUpdate(A, candle, is_closed=True) for candle in candles]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        for update in self.updates:
            yield update


async def passed(folder: Path, plugin: Saying) -> tuple[list[float], list[str]]:
    """Return the prices that the relay takes of a feed, and what it says of those that it left out."""
    skipped: list[str] = []
    async with rig_of(plugin, folder) as rig:
        updates = rig.provider.stream(Watchlist([A], on_skip=skipped.append))
        return [update.candle.close async for update in updates], skipped


@pytest.mark.parametrize("asset_class", ["crypto", "forex"])
async def test_a_price_far_from_before_and_after_is_left_out_and_counted(tmp_path: Path, asset_class: str) -> None:
    taken, skipped = await passed(tmp_path, Saying(asset_class, 1.1, 1100.0, 1.1, 1.2))
    assert (taken, skipped) == ([1.1, 1.1, 1.2], ["A@1m: a price of 1100.0, far from the candles around it"])


async def test_a_price_that_another_one_confirms_is_taken_however_far_it_is(tmp_path: Path) -> None:
    prices = [60_000.0, 8000.0, 8100.0, 61_000.0, 60_500.0]
    assert await passed(tmp_path, Saying("crypto", *prices)) == (prices, [])


async def test_where_prices_may_be_zero_none_is_far_from_another(tmp_path: Path) -> None:
    prices = [20.0, -37.0, 0.0, 10.0]
    assert await passed(tmp_path, Saying("energy", *prices)) == (prices, [])


class Slipping(Scripted):
    """Closes a candle a second at 100; the third of them it says at 100,000, which its history knows nothing of."""

    def __init__(self) -> None:
        super().__init__(name="slipping", asset_classes=("crypto",), intervals=("1s",))
        self.slipped: int | None = None

    @staticmethod
    def candle(opened: int, price: float = 100.0) -> Candle:
        return Candle(opened, price, price, price, price)

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        opened = int(time.time())
        for number in itertools.count():
            await asyncio.sleep(max(0.0, opened + 1.02 - time.time()))
            if number == 2:
                self.slipped = opened
            price = 100_000.0 if self.slipped == opened else 100.0
            for key in watchlist.streams:
                yield PriceUpdate(key, self.candle(opened, price), is_closed=True)
            opened += 1

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        times = range(start or int(time.time()) - 100, min(end, int(time.time())))
        return [self.candle(opened) for opened in (times[-limit:] if start is None else times[:limit])]


async def test_a_candle_that_a_leap_would_have_closed_is_closed_as_history_has_it(relay_with: StartRelay) -> None:
    plugin = Slipping()
    relay = await relay_with(builtin=(*BUILTIN, plugin))
    client = await relay.connect()
    await client.subscribe("slipping:S@1s")
    told = [(await client.update(is_closed=True))["candle"] for _ in range(5)]
    assert [candle["time"] for candle in told] == list(range(told[0]["time"], told[0]["time"] + 5))
    assert plugin.slipped in [candle["time"] for candle in told]
    assert {candle["close"] for candle in told} == {100.0}
