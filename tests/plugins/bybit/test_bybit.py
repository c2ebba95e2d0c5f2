"""The provider against a stand-in, and its codec against messages in Bybit's format."""

import asyncio
import json
import time

from bybit_standin import DAY_S, Bybit, opened_at
from market_relay_bybit import NAMES, BybitCodec

from relay import (
    Accepted,
    BadAnswer,
    Candle,
    PriceUpdate,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Rejected,
    StreamKey,
    UnknownSymbol,
)
from relay.testing import WatchedFeed, check_provider, open_provider, sped_up

BTC = StreamKey("BTCUSDT", "5m")
NOPE = StreamKey("NOPEUSDT", "1h")


@sped_up
async def test_conformance():
    async with Bybit() as venue:
        opened = int(time.time()) // 3600 * 3600 - 7200
        values = [float(text) for text in venue.values(opened, "60")[:5]]
        report = await check_provider(
            "market_relay_bybit",
            symbol="BTCUSDT",
            interval="1m",
            settings=venue.settings,
            expected={StreamKey("BTCUSDT", "1h"): [Candle(opened, *values)]},
        )
    # Nothing was left out: every fault that the check knows would have been found.
    assert report.unchecked == ()
    assert {"closing", "reconnect", "refusal", "pages", "live values of BTCUSDT@1m"} <= set(report.checked)


def kline(**changes):
    # bybit-exchange.github.io/docs/v5, "Kline".
    row = {"start": 1_672_324_800_000, "end": 1_672_325_099_999, "interval": "5", "confirm": False}
    prices = {"open": "16649.5", "close": "16677", "high": "16677", "low": "16608", "volume": "2.081"}
    row |= {**prices, "turnover": "34666.4005", "timestamp": 1_672_324_988_882, **changes}
    return json.dumps({"topic": "kline.5.BTCUSDT", "data": [row], "ts": 1_672_324_988_882, "type": "snapshot"})


def test_candle_is_closed_when_bybit_confirms_it():
    codec = BybitCodec("ws://venue")
    candle = Candle(1_672_324_800, 16649.5, 16677.0, 16608.0, 16677.0, 2.081)
    (open_state,) = codec.decode(kline())
    assert open_state == PriceUpdate(BTC, candle, False, 1_672_324_988_882)
    assert open_state.candle.quote_volume == 34666.4005
    (closed,) = codec.decode(kline(confirm=True))
    assert closed.is_closed


def test_what_does_not_fit_its_topic_is_no_candle():
    codec = BybitCodec("ws://venue")
    for changes in ({"interval": "15"}, {"start": 1_672_324_800_500}, {"open": "1e3"}, {"volume": None}):
        try:
            found = list(codec.decode(kline(**changes)))
        except (ValueError, TypeError):
            found = []
        assert found == []


def test_answers_belong_to_their_requests():
    codec = BybitCodec("ws://venue")
    requests = [json.loads(text) for keys in ([BTC, NOPE], [BTC]) for text in codec.subscribe(keys)]
    assert requests == [
        {"req_id": "1", "op": "subscribe", "args": ["kline.5.BTCUSDT", "kline.60.NOPEUSDT"]},
        {"req_id": "2", "op": "subscribe", "args": ["kline.5.BTCUSDT"]},
    ]
    answer = {"success": True, "ret_msg": "subscribe", "conn_id": "c", "req_id": "2", "op": "subscribe"}
    assert list(codec.decode(json.dumps(answer))) == [Accepted((BTC,))]
    why = "error:handler not found,topic:kline.60.NOPEUSDT"
    answer |= {"success": False, "ret_msg": why, "req_id": "1"}
    assert list(codec.decode(json.dumps(answer))) == [Rejected((BTC, NOPE), why)]
    pong = {"success": True, "ret_msg": "pong", "conn_id": "c", "req_id": "", "op": "ping"}
    assert list(codec.decode(json.dumps(pong))) == []


@sped_up
async def test_connection_lives_through_pings_refusals_and_nonsense_with_more_streams_than_one_request_takes():
    keys = [StreamKey(symbol, name) for symbol in ("BTCUSDT", "ETHUSDT") for name in NAMES]
    async with (
        Bybit() as venue,
        open_provider("market_relay_bybit", venue.settings) as provider,
        WatchedFeed(provider, [*keys, NOPE]) as feed,
    ):
        venue.sends_nonsense = True
        assert await feed.until(lambda: NOPE in feed.rejected and all(map(feed.count, keys)), 30)
        assert feed.rejected[NOPE] == "error:handler not found,topic:kline.60.NOPEUSDT"
        await asyncio.sleep(100)
        assert not feed.has_ended
    assert venue.ended == 0
    assert max(len(message.get("args", ())) for message in venue.messages) == 10
    assert feed.skipped


async def test_history_is_whole_over_pages_and_begins_with_the_listing():
    async with Bybit() as venue, open_provider("market_relay_bybit", venue.settings) as provider:
        first = await provider.candles(StreamKey("BTCUSDT", "1m"), 0, 2**31, 2500)
        assert [one.time for one in first] == list(range(venue.began, venue.began + 2500 * 60, 60))
        newest = await provider.candles(StreamKey("BTCUSDT", "1h"), None, int(venue.now()) + 1, 5000)
        assert newest[0].time == venue.began
        assert newest[-1].time == opened_at("60", venue.now())
        assert len(venue.asked) < 30


async def test_weeks_begin_on_mondays_and_months_on_the_first():
    async with Bybit() as venue, open_provider("market_relay_bybit", venue.settings) as provider:
        weeks = await provider.candles(StreamKey("BTCUSDT", "1w"), None, int(venue.now()) + 1, 3)
        months = await provider.candles(StreamKey("BTCUSDT", "1M"), None, int(venue.now()) + 1, 1)
    assert {time.gmtime(one.time).tm_wday for one in weeks} == {0}
    assert [time.gmtime(one.time).tm_mday for one in months] == [1]
    assert weeks[1].time - weeks[0].time == 7 * DAY_S


async def test_instruments_have_the_steps_of_bybit():
    async with Bybit() as venue, open_provider("market_relay_bybit", venue.settings) as provider:
        found = await provider.instruments()
    assert [(one.symbol, one.base, one.quote, one.status) for one in found] == [
        ("BTCUSDT", "BTC", "USDT", "trading"),
        ("ETHUSDT", "ETH", "USDT", "trading"),
        ("OLDUSDT", "OLD", "USDT", "paused"),
    ]
    assert {(one.price_step, one.volume_step) for one in found} == {("0.01", "0.000001")}


async def test_refusals_keep_their_meaning_and_only_the_log_has_the_words_of_bybit():
    wanted = {
        (200, 10_001, "Not supported symbols"): (UnknownSymbol, "Bybit does not list BTCUSDT"),
        (200, 10_001, "Invalid period!"): (BadAnswer, "Bybit refused the request"),
        (200, 10_006, "Too many visits."): (RateLimited, "Bybit answers no more requests for now"),
        (200, 10_018, "IP 1.2.3.4 exceeded the limit"): (RateLimited, "Bybit answers no more requests for now"),
        (200, 10_016, "Request timeout"): (ProviderUnavailable, "Bybit is busy"),
        (403, 0, "too frequent"): (RateLimited, "HTTP 403: Bybit refuses this address for ten minutes"),
        (503, 0, "maintenance"): (ProviderUnavailable, "HTTP 503"),
    }
    found, details = {}, {}
    async with Bybit() as venue:
        for key in wanted:
            venue.status, *refusal = key
            venue.refusal = tuple(refusal)
            # One each: who asks too often is not asked again for a while.
            async with open_provider("market_relay_bybit", venue.settings) as provider:
                try:
                    await provider.candles(StreamKey("BTCUSDT", "1h"), None, 2**31, 5)
                except ProviderError as error:
                    found[key], details[key] = (type(error), str(error)), error.detail
    assert found == wanted
    assert details == {key: f"{key[1]} {key[2]}" if key[0] == 200 else "" for key in wanted}
