import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from providers.binance.codec import BinanceCodec
from providers.binance.pairs import pair_of
from providers.binance.provider import INTERVALS, BinanceProvider
from providers.binance_markets.instruments import read_list
from providers.binance_markets.weight import Weight
from relay import (
    Accepted,
    BadAnswer,
    Budget,
    Candle,
    Closing,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderUnavailable,
    RateLimited,
    Rejected,
    StreamKey,
    UnknownSymbol,
)
from relay.core.written_numbers import written_texts
from tests.support.bound_provider import BoundProvider
from tests.support.pump import keys
from tests.support.sandbox import GARBAGE, BinanceStandIn

FRAMES = (Path(__file__).parents[1] / "data/binance/frames.jsonl").read_text(encoding="utf-8").splitlines()
KLINES = Path(__file__).parents[1] / "data/binance/klines.json"
BTC = StreamKey("BTCUSDT", "1m")


# ---- codec ------------------------------------------------------------------------------------------------------


def codec(*names: str) -> BinanceCodec:
    made = BinanceCodec(Hosts(["wss://one:9443", "wss://two"]))
    list(made.subscribe(keys(*names)))
    return made


def test_a_kline_event_becomes_an_update() -> None:
    made = codec("BTCUSDT@1m", "ETHUSDT@1d")
    assert [made.decode(frame) for frame in FRAMES[:3]] == [
        (PriceUpdate(BTC, Candle(1770123360, 70100.1, 70120.0, 70090.5, 70110.25, 1.25), False, 1770123400123),),
        (PriceUpdate(BTC, Candle(1770123360, 70100.1, 70120.0, 70090.5, 70111.0, 1.5), True, 1770123420005),),
        (
            PriceUpdate(
                StreamKey("ETHUSDT", "1d"),
                Candle(1770076800, 2150.0, 2150.0, 2150.0, 2150.0, 0.0),
                False,
                1770123421999,
            ),
        ),
    ]


def test_a_kline_event_carries_more_than_prices_and_volume() -> None:
    (update,) = codec("BTCUSDT@1m").decode(FRAMES[1])
    assert isinstance(update, PriceUpdate)
    kline = orjson.loads(FRAMES[1])["data"]["k"]
    candle = update.candle
    assert candle.trades == kline["n"]
    assert (candle.quote_volume, candle.taker_volume, candle.taker_quote_volume) == tuple(
        float(kline[letter]) for letter in "qVQ"
    )
    assert written_texts(candle) == tuple(kline[letter] for letter in "ohlcvqVQ")


@pytest.mark.parametrize("letter", ["q", "n", "V", "Q"])
@pytest.mark.parametrize("value", [None, "x", -1, "-1.0", [], "missing"])
def test_a_kline_event_whose_extras_make_no_sense_costs_only_those(letter: str, value: object) -> None:
    event = orjson.loads(FRAMES[0])
    event["data"]["k"][letter] = value
    if value == "missing":
        del event["data"]["k"][letter]
    (update,) = codec("BTCUSDT@1m").decode(orjson.dumps(event))
    assert isinstance(update, PriceUpdate)
    assert update.candle == Candle(1770123360, 70100.1, 70120.0, 70090.5, 70110.25, 1.25)
    if (letter, value) != ("n", None):
        assert update.candle.quote_volume is update.candle.trades is update.candle.taker_volume is None


def test_other_events_say_nothing() -> None:
    assert [codec("BTCUSDT@1m").decode(frame) for frame in FRAMES[3:5]] == [(), ()]


@pytest.mark.parametrize("name", ["btcusdt@bookTicker", "!ticker@arr", "btcusdt@depth20"])
def test_an_event_that_does_not_say_what_it_is_says_nothing(name: str) -> None:
    assert codec("BTCUSDT@1m").decode(orjson.dumps({"stream": name, "data": {"u": 1, "s": "BTCUSDT"}})) == ()


def test_a_shutdown_is_announced_wrapped_and_bare() -> None:
    said = [codec().decode(frame)[0] for frame in FRAMES[5:7]]
    assert all(isinstance(value, Closing) for value in said)


def test_a_stream_that_was_not_subscribed_says_nothing() -> None:
    made = codec("BTCUSDT@5m")
    assert made.decode(FRAMES[0]) == ()
    list(made.subscribe([BTC]))
    assert made.decode(FRAMES[0])
    list(made.unsubscribe([BTC]))
    assert made.decode(FRAMES[0]) == ()


def changed(**fields: object) -> bytes:
    event = orjson.loads(FRAMES[0])
    event["data"]["k"] |= fields
    return orjson.dumps(event)


@pytest.mark.parametrize(
    "fields",
    [
        {"o": "NaN"},
        {"v": "NaN"},
        {"v": "inf"},
        {"l": "-inf"},
        {"l": "-1"},
        {"h": "1e999"},
        {"c": ""},
        {"v": None},
        {"v": "-1"},
        {"t": "1770123360000"},
        {"t": 1770123360000.5},
        {"t": None},
        {"t": True},
        {"t": -1},
        {"x": "true"},
        {"x": 1},
        {"x": None},
        {"o": []},
        {"o": "1_00"},
        {"o": " 100 "},
        {"o": "١٠٠"},
        {"h": "1e308"},
        {"h": "Infinity"},
        {"l": "0x10"},
        {"s": []},
        {"s": {"a": 1}},
        {"t": 1770123360500},
        {"T": 1770123360000 + 3_600_000 - 1},
        {"T": 1770123359999},
        {"T": None},
    ],
)
def test_an_event_with_a_bad_field_makes_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, ArithmeticError, AttributeError)):
        codec("BTCUSDT@1m").decode(changed(**fields))


@pytest.mark.parametrize("field", ["t", "x", "o", "h", "l", "c", "v", "s", "i"])
def test_an_event_without_a_field_makes_no_sense(field: str) -> None:
    event = orjson.loads(FRAMES[0])
    del event["data"]["k"][field]
    with pytest.raises(KeyError):
        codec("BTCUSDT@1m").decode(orjson.dumps(event))


@pytest.mark.parametrize("frame", GARBAGE)
def test_garbage_says_nothing_or_makes_no_sense(frame: str | bytes) -> None:
    with suppress(ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        assert codec("BTCUSDT@1m").decode(frame) == ()


def test_names_are_lower_case_and_intervals_keep_their_case() -> None:
    (text,) = codec().subscribe(keys("BTCUSDT@1M", "币安人生USDT@1m"))
    assert orjson.loads(text) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt@kline_1M", "币安人生usdt@kline_1m"],
        "id": 1,
    }


def test_an_answer_accepts_the_streams_of_its_message() -> None:
    made = codec("BTCUSDT@1m", "ETHUSDT@1m")
    assert made.decode('{"result":null,"id":1}') == (Accepted(tuple(keys("BTCUSDT@1m", "ETHUSDT@1m"))),)
    assert made.decode('{"result":null,"id":1}') == ()


def test_an_answer_counts_only_for_the_newest_subscription_of_a_stream() -> None:
    made = codec("BTCUSDT@1m", "ETHUSDT@1m")
    list(made.unsubscribe([BTC]))
    list(made.subscribe([BTC]))
    assert made.decode('{"result":null,"id":1}') == (Accepted(tuple(keys("ETHUSDT@1m"))),)
    assert made.decode('{"result":null,"id":2}') == ()
    assert made.decode('{"result":null,"id":3}') == (Accepted((BTC,)),)


@pytest.mark.parametrize(
    "frame",
    [
        '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":1}',
        '{"code":2,"msg":"Invalid request: invalid stream","id":1}',
    ],
)
def test_a_refusal_is_understood_nested_and_flat(frame: str) -> None:
    (said,) = codec("BTCUSDT@1m").decode(frame)
    assert said == Rejected((BTC,), "the provider refused the stream: Invalid request: invalid stream")


def test_a_refusal_of_nothing_in_particular_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="refused a message"):
        codec("BTCUSDT@1m").decode('{"error":{"code":2,"msg":"Invalid request: missing field `method`"},"id":null}')


def test_messages_stay_below_4_kib() -> None:
    wide = [StreamKey(f"币安人生币安人生币安人生{number}USDT", "15m") for number in range(100)]
    made = codec()
    texts = [*made.subscribe(wide), *made.unsubscribe(wide)]
    assert len(texts) == 4
    assert all(len(text.encode()) < 4096 for text in texts)
    assert sum(len(orjson.loads(text)["params"]) for text in texts) == 200


@pytest.mark.parametrize(
    ("status", "host"), [(451, "two"), (403, "two"), (None, "two"), (503, "two"), (429, "one:9443")]
)
def test_a_host_that_refuses_is_left_and_one_that_asks_for_patience_is_not(status: int | None, host: str) -> None:
    hosts = Hosts(["wss://one:9443", "wss://two"])
    made = BinanceCodec(hosts)
    assert made.url == "wss://one:9443/stream"
    made.connect_failed(status)
    assert BinanceCodec(hosts).url == f"wss://{host}/stream"


# ---- weight -----------------------------------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.now = 1_770_000_000.0  # a full minute

    def __call__(self) -> float:
        return self.now


def test_weight_stops_short_of_the_limit_and_begins_anew_each_minute() -> None:
    now = Time()
    weight = Weight(100, wall=now, monotonic=now)
    now.now += 45
    for _ in range(45):
        weight.spend(2)
    with pytest.raises(RateLimited) as caught:
        weight.spend(2)
    assert caught.value.retry_after == 15.0
    assert weight.budget() == Budget("request weight a minute", 100, 90, 1_770_000_060.0)
    now.now += 15
    weight.spend(2)
    assert weight.budget().used == 2


def test_weight_believes_the_exchange() -> None:
    now = Time()
    weight = Weight(100, wall=now, monotonic=now)
    weight.spend(2)
    weight.learn("89")
    with pytest.raises(RateLimited):
        weight.spend(2)
    weight.learn(None)
    weight.learn("nonsense")
    assert weight.budget().used == 89


def test_a_block_holds_until_it_ends_and_the_longest_wins() -> None:
    now = Time()
    weight = Weight(100, wall=now, monotonic=now)
    weight.block(100, "banned")
    weight.block(5, "slow down")
    now.now += 61
    with pytest.raises(RateLimited, match="banned") as caught:
        weight.spend(2)
    assert caught.value.retry_after == 39.0
    assert weight.budget() == Budget("request weight a minute", 100, 100, 1_770_000_100.0)
    now.now += 40
    weight.spend(2)


# ---- against the stand-in ---------------------------------------------------------------------------------------


@pytest.fixture
async def exchange() -> AsyncIterator[BinanceStandIn]:
    async with BinanceStandIn(pace_s=0.05) as exchange:
        yield exchange


class Plugin(BoundProvider):
    """Binance's provider at the addresses of a stand-in."""

    provider: BinanceProvider

    def __init__(self, session: aiohttp.ClientSession, ws: Sequence[str] = (), rest: Sequence[str] = ()) -> None:
        super().__init__(BinanceProvider(), session, {"ws_url": tuple(ws), "rest_url": tuple(rest)})


@pytest.fixture
def plugin(exchange: BinanceStandIn, session: aiohttp.ClientSession) -> Plugin:
    return Plugin(session, [exchange.ws_url], [exchange.rest_url])


async def test_streams_arrive_and_close(plugin: Plugin) -> None:
    async with plugin.pump("BTCUSDT@1s", "币安人生USDT@1m") as feed:
        second = StreamKey("BTCUSDT", "1s")
        await feed.until(lambda: sum(update.key == second and update.is_closed for update in feed.updates) >= 2)
        await feed.until(lambda: {update.key for update in feed.updates} == set(feed.watchlist.streams))
    assert sorted(feed.accepted) == sorted(keys("BTCUSDT@1s", "币安人生USDT@1m"))
    closed = [update.candle.time for update in feed.updates if update.is_closed and update.key == second]
    assert all(later == earlier + 1 for earlier, later in pairwise(closed))
    assert feed.skipped == []


async def test_150_streams_take_two_messages_within_the_pace(
    exchange: BinanceStandIn, session: aiohttp.ClientSession
) -> None:
    exchange.add_symbols([f"T{number:03d}USDT" for number in range(150)])
    plugin = Plugin(session, [exchange.ws_url], [exchange.rest_url])
    async with plugin.pump(*(f"T{number:03d}USDT@1m" for number in range(150))) as feed:
        await feed.until(lambda: len(feed.accepted) == 150)
    assert [message.kind for message in exchange.control_messages if message.kind == "text"] == ["text", "text"]
    assert exchange.rate_violations == 0
    assert len(exchange.connect_log) == 1


async def test_garbage_never_ends_the_feed(exchange: BinanceStandIn, plugin: Plugin) -> None:
    async with plugin.pump("BTCUSDT@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        exchange.faults.send_garbage()
        exchange.inject("btcusdt@kline_1m", t=60_000, x=True)
        await feed.until(lambda: any(update.candle.time == 60 for update in feed.updates))
        assert not feed.has_ended
    assert len(feed.skipped) > 15


async def test_a_shutdown_is_reported_while_updates_go_on(exchange: BinanceStandIn, plugin: Plugin) -> None:
    async with plugin.pump("BTCUSDT@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        exchange.announce_shutdown()
        await feed.until(lambda: bool(feed.announced))
        seen = len(feed.updates)
        await feed.until(lambda: len(feed.updates) > seen)


async def test_a_dropped_connection_raises_and_an_orderly_close_returns(
    exchange: BinanceStandIn, plugin: Plugin
) -> None:
    async with plugin.pump("BTCUSDT@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        exchange.faults.drop()
        assert isinstance(await feed.end(), ProviderUnavailable)
    async with plugin.pump("BTCUSDT@1m") as feed:
        await feed.until(lambda: bool(feed.updates))
        exchange.faults.drop(1001)
        assert await feed.end() is None


@pytest.mark.parametrize("status", [403, 451, 503])
async def test_the_next_stream_host_is_used_from_then_on(
    exchange: BinanceStandIn, session: aiohttp.ClientSession, status: int
) -> None:
    async with BinanceStandIn() as refusing:
        refusing.faults.refuse(status)
        plugin = Plugin(session, [refusing.ws_url, exchange.ws_url])
        async with plugin.pump("BTCUSDT@1m") as feed:
            assert isinstance(await feed.end(), ProviderUnavailable)
        for _ in range(2):
            async with plugin.pump("BTCUSDT@1m") as feed:
                await feed.until(partial(bool, feed.accepted))
        assert len(refusing.connect_log) == 1


async def test_all_pairs_are_listed_and_those_that_do_not_trade_are_paused(
    exchange: BinanceStandIn, plugin: Plugin
) -> None:
    listed = await plugin.instruments()
    named = {one.symbol: one._replace(extras=None) for one in listed}
    assert named["BTCUSDT"] == Instrument(
        "BTCUSDT", "crypto", "BTC", "USDT", price_step="0.01000000", volume_step="0.00001000", session="24x7"
    )
    assert (named["币安人生USDT"].base, named["LRCBTC"].price_step) == ("币安人生", "0.00000001")
    assert {one.symbol for one in listed if one.status == "paused"} == {"NKNUSDT"}
    assert exchange.requests[0].query == {"showPermissionSets": "false"}
    assert plugin.provider.relay_budgets()[0].used == 20


async def test_all_that_binance_says_of_a_pair_is_kept_for_facades(exchange: BinanceStandIn, plugin: Plugin) -> None:
    listed = await plugin.instruments()
    async with aiohttp.ClientSession() as session, session.get(f"{exchange.rest_url}/api/v3/exchangeInfo") as answer:
        given = {pair["symbol"]: pair for pair in (await answer.json())["symbols"]}
    assert {one.symbol for one in listed} == given.keys()
    for one in listed:
        assert one.extras is not None
        # The sets of permissions are not asked for: one pair of the venue had more than 200 names in them.
        expected = {**given[one.symbol], "permissionSets": one.extras["exchange_info"]["permissionSets"]}
        assert orjson.dumps(one.extras["exchange_info"]) == orjson.dumps(expected)


@pytest.mark.parametrize(
    ("filters", "steps"),
    [
        ([{"filterType": "PRICE_FILTER", "tickSize": "0.10"}], ("0.10", None)),
        ([{"filterType": "PRICE_FILTER", "tickSize": "0.00000000"}], (None, None)),
        ([{"filterType": "LOT_SIZE", "stepSize": "1.00000000"}], (None, "1.00000000")),
        ([{"filterType": "LOT_SIZE", "stepSize": 1}], (None, None)),
        ([{"filterType": "LOT_SIZE"}, {"filterType": "PRICE_FILTER", "tickSize": "1" * 40}], (None, None)),
        (["LOT_SIZE", None, 7], (None, None)),
        ({"LOT_SIZE": "1"}, (None, None)),
        (None, (None, None)),
    ],
)
async def test_steps_are_those_of_the_filters_or_unknown(filters: Any, steps: tuple[str | None, str | None]) -> None:
    pair = {"symbol": "A", "baseAsset": "A", "quoteAsset": "B", "status": "TRADING", "filters": filters}
    (listed,) = await read_list({"symbols": [pair]}, pair_of)
    assert (listed.price_step, listed.volume_step) == steps


async def test_a_pair_of_which_too_much_is_said_is_listed_without_that() -> None:
    pair = {"symbol": "A", "baseAsset": "A", "quoteAsset": "B", "status": "BREAK"}
    listed = await read_list({"symbols": [{**pair, "more": "x" * 16_000}, {**pair, "more": 2**80}, pair]}, pair_of)
    assert [(one.status, one.extras is None) for one in listed] == [
        ("paused", True),
        ("paused", True),
        ("paused", False),
    ]


async def test_2500_klines_from_a_start_take_three_pages(exchange: BinanceStandIn, plugin: Plugin) -> None:
    end = int(exchange.clock.now()) // 60 * 60
    candles = await plugin.candles("BTCUSDT", "1m", end - 3000 * 60, end, 2500)
    assert [candle.time for candle in candles] == list(range(end - 3000 * 60, end - 500 * 60, 60))
    assert [call.query["limit"] for call in exchange.requests] == ["1000", "1000", "500"]


async def test_the_newest_2500_klines_before_an_end_take_three_pages(exchange: BinanceStandIn, plugin: Plugin) -> None:
    end = int(exchange.clock.now()) // 60 * 60 - 600
    candles = await plugin.candles("BTCUSDT", "1m", None, end, 2500)
    assert [candle.time for candle in candles] == list(range(end - 2500 * 60, end, 60))
    assert len(exchange.requests) == 3


async def test_klines_carry_what_the_exchange_wrote(exchange: BinanceStandIn, plugin: Plugin) -> None:
    rows: list[list[Any]] = orjson.loads(KLINES.read_bytes())["BTCUSDT@1d"]
    exchange.serve_rows("BTCUSDT", "1d", rows)
    candles = await plugin.candles("BTCUSDT", "1d", rows[0][0] // 1000, rows[-1][0] // 1000 + 1, 1000)
    assert [(one.time * 1000, *(written_texts(one) or ()), one.trades) for one in candles] == [
        (row[0], *row[1:6], row[7], row[9], row[10], row[8]) for row in rows
    ]


async def test_klines_without_extras_that_make_sense_are_candles_all_the_same(
    exchange: BinanceStandIn, plugin: Plugin
) -> None:
    rows: list[list[Any]] = orjson.loads(KLINES.read_bytes())["BTCUSDT@1d"][:1]
    exchange.serve_rows("BTCUSDT", "1d", [row[:7] for row in rows])
    (candle,) = await plugin.candles("BTCUSDT", "1d", rows[0][0] // 1000, rows[0][0] // 1000 + 1, 1000)
    assert (candle, candle.extras) == (Candle(rows[0][0] // 1000, *map(float, rows[0][1:6])), None)


async def test_start_is_included_and_end_is_not(exchange: BinanceStandIn, plugin: Plugin) -> None:
    end = int(exchange.clock.now()) // 60 * 60 - 600
    times = [candle.time for candle in await plugin.candles("BTCUSDT", "1m", end - 120, end, 10)]
    assert times == [end - 120, end - 60]
    times = [candle.time for candle in await plugin.candles("BTCUSDT", "1m", end - 119, end + 1, 10)]
    assert times == [end - 60, end]
    assert await plugin.candles("BTCUSDT", "1m", end, end, 10) == []


async def test_the_open_candle_is_included_when_the_range_reaches_it(exchange: BinanceStandIn, plugin: Plugin) -> None:
    now = int(exchange.clock.now())
    candles = await plugin.candles("BTCUSDT", "1h", None, now + 3600, 2)
    assert candles[-1].time in (now // 3600 * 3600, now // 3600 * 3600 + 3600)
    assert len(candles) == 2


async def test_holes_in_the_grid_are_passed_over(exchange: BinanceStandIn, plugin: Plugin) -> None:
    end = int(exchange.clock.now()) // 60 * 60
    hole = range(end - 1500 * 60, end - 500 * 60, 60)
    exchange.hide("BTCUSDT", hole[0], hole[-1] + 60)
    expected = [moment for moment in range(end - 2500 * 60, end, 60) if moment not in hole]
    for start in (end - 2500 * 60, None):
        candles = await plugin.candles("BTCUSDT", "1m", start, end, 1500)
        assert [candle.time for candle in candles] == expected


async def test_nothing_before_the_listing_is_an_empty_list(plugin: Plugin) -> None:
    assert await plugin.candles("BTCUSDT", "1d", 0, 1_000_000_000, 10) == []
    assert await plugin.candles("BTCUSDT", "1d", None, 1_000_000_000, 10) == []


@pytest.mark.parametrize("interval", INTERVALS)
async def test_every_interval_has_history(exchange: BinanceStandIn, plugin: Plugin, interval: str) -> None:
    candles = await plugin.candles("ETHUSDT", interval, None, int(exchange.clock.now()), 3)
    assert len(candles) == 3


async def test_a_429_stops_every_call_until_its_time(exchange: BinanceStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(429, '{"code":-1003,"msg":"Too much request weight used."}', retry_after=37, times=1)
    with pytest.raises(RateLimited, match=r"^HTTP 429: too many requests$") as first:
        await plugin.candles("BTCUSDT", "1m", None, 1_770_000_000, 1)
    assert first.value.detail == "Too much request weight used."
    assert first.value.retry_after == 37.0
    with pytest.raises(RateLimited) as second:
        await plugin.instruments()
    assert 36.0 < second.value.retry_after <= 37.0
    assert len(exchange.requests) == 1


async def test_a_ban_without_retry_after_is_read_from_its_message(exchange: BinanceStandIn, plugin: Plugin) -> None:
    until = int(time.time() * 1000) + 600_000
    exchange.faults.answer_rest(418, f'{{"code":-1003,"msg":"Way too much; IP banned until {until}. Bye."}}', times=1)
    with pytest.raises(RateLimited) as caught:
        await plugin.instruments()
    assert 590 < caught.value.retry_after < 601
    # What names an address of ours is for the log.
    assert str(caught.value) == "HTTP 418: too many requests"
    assert "IP banned" in caught.value.detail


async def test_a_limit_below_the_usual_one_that_the_exchange_states_is_kept_to(
    exchange: BinanceStandIn, plugin: Plugin
) -> None:
    exchange.rest.weight_limit = 1200
    await plugin.instruments()
    assert plugin.provider.relay_budgets()[0].limit == 1200
    exchange.faults.answer_rest(
        429,
        '{"code":-1003,"msg":"Too much request weight used; current limit is 600 request weight per 1 MINUTE."}',
        retry_after=1,
        times=1,
    )
    with pytest.raises(RateLimited):
        await plugin.instruments()
    assert plugin.provider.relay_budgets()[0].limit == 600


async def test_refusals_that_do_not_say_how_long_have_growing_pauses(session: aiohttp.ClientSession) -> None:
    weight = Weight(6000)
    assert [weight.pause_s() for _ in range(6)] == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    weight.relent()
    assert weight.pause_s() == 60.0


async def test_too_much_weight_is_believed_whatever_the_status(exchange: BinanceStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(400, '{"code":-1003,"msg":"Too many requests."}', times=1)
    with pytest.raises(RateLimited):
        await plugin.instruments()
    with pytest.raises(RateLimited):
        await plugin.instruments()
    assert len(exchange.requests) == 1


async def test_addresses_that_change_while_the_relay_runs_are_asked(
    exchange: BinanceStandIn, session: aiohttp.ClientSession
) -> None:
    plugin = Plugin(session, rest=["http://127.0.0.1:1"])
    with pytest.raises(ProviderUnavailable):
        await plugin.instruments()
    plugin.settings = plugin.settings | {"rest_url": (exchange.rest_url,)}
    assert await plugin.instruments()


async def test_an_unknown_symbol_is_said_by_the_exchange(plugin: Plugin) -> None:
    with pytest.raises(UnknownSymbol, match="Invalid symbol"):
        await plugin.candles("NOPEUSDT", "1m", None, 1_770_000_000, 1)


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        "[[]]",
        "[1]",
        '[["x","1","1","1","1","1"]]',
        '[[1000,"1","1","1","NaN","1"]]',
        '[[1000,"1","0.5","1","1","1"]]',
        '[[60000,"1","1","1","1","1"],[60000,"1","1","1","1","1"]]',
        '[[9000000000000000,"1","1","1","1","1"]]',
        "nonsense",
        "",
    ],
)
async def test_klines_without_sense_are_a_bad_answer(exchange: BinanceStandIn, plugin: Plugin, body: str) -> None:
    exchange.faults.answer_rest(200, body)
    with pytest.raises(BadAnswer):
        await plugin.candles("BTCUSDT", "1m", 0, 1_770_000_000, 5)


async def test_more_klines_than_were_asked_for_are_refused(exchange: BinanceStandIn, plugin: Plugin) -> None:
    rows = [[n * 60_000, "1", "1", "1", "1", "1", n * 60_000 + 59_999] for n in range(6)]
    exchange.faults.answer_rest(200, orjson.dumps(rows))
    with pytest.raises(BadAnswer, match="6 rows, more than the limit of 5"):
        await plugin.candles("BTCUSDT", "1m", 0, 1_770_000_000, 5)


async def test_a_listing_of_more_pairs_than_any_exchange_has_is_not_walked(
    exchange: BinanceStandIn, plugin: Plugin
) -> None:
    exchange.faults.answer_rest(200, '{"symbols":[' + "[]," * 20_000 + "[]]}")
    with pytest.raises(BadAnswer, match="20,001 pairs, more than the limit of 20,000"):
        await plugin.instruments()


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"symbols":[1]}', '{"symbols":[{"symbol":"A"}]}', '{"symbols":"BTCUSDT"}', "null"]
)
async def test_a_listing_without_sense_is_a_bad_answer(exchange: BinanceStandIn, plugin: Plugin, body: str) -> None:
    exchange.faults.answer_rest(200, body)
    with pytest.raises(BadAnswer):
        await plugin.instruments()


async def test_half_an_answer_is_no_answer(exchange: BinanceStandIn, plugin: Plugin) -> None:
    exchange.faults.answer_rest(200, truncated=True)
    with pytest.raises(ProviderUnavailable):
        await plugin.candles("BTCUSDT", "1m", None, 1_770_000_000, 500)


async def test_rest_moves_on_from_a_host_that_refuses_this_country(
    exchange: BinanceStandIn, session: aiohttp.ClientSession
) -> None:
    async with BinanceStandIn() as refusing:
        refusing.faults.answer_rest(451, "")
        plugin = Plugin(session, rest=[refusing.rest_url, exchange.rest_url])
        for _ in range(3):
            assert await plugin.instruments()
        assert len(refusing.requests) == 1


async def test_a_cancelled_call_is_cancelled(exchange: BinanceStandIn, plugin: Plugin) -> None:
    exchange.faults.delay_rest(30)
    call = asyncio.create_task(plugin.instruments())
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_the_provider_says_who_it_is() -> None:
    info = BinanceProvider().relay_provider()
    assert (info.name, info.asset_classes, info.intervals) == ("binance", ("crypto",), INTERVALS)
    assert {setting.name: setting.default for setting in info.settings} == {
        "ws_url": ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision"),
        "rest_url": ("https://api.binance.com", "https://data-api.binance.vision"),
    }
    assert info.streams_per_feed < 1024
    assert "Binance" in info.attribution


def test_instances_share_nothing() -> None:
    one, other = BinanceProvider(), BinanceProvider()
    one._weight.block(100, "banned")
    assert other.relay_budgets()[0].used == 0
