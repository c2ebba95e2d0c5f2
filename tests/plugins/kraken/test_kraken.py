"""The provider against a stand-in, and its codec against messages in Kraken's format."""

import json

from kraken_standin import Kraken
from market_relay_kraken import KrakenCodec

from relay import (
    Accepted,
    BadAnswer,
    Candle,
    PriceUpdate,
    ProviderUnavailable,
    RateLimited,
    Rejected,
    StreamKey,
    UnknownSymbol,
)
from relay.testing import check_provider, open_provider, sped_up

BTC = StreamKey("BTC/USD", "5m")


@sped_up
async def test_conformance():
    async with Kraken() as venue:
        report = await check_provider("market_relay_kraken", symbol="BTC/USD", interval="1m", settings=venue.settings)
    assert {"closing", "live values of BTC/USD@1m"} <= set(report.checked)


def row(begun, close, symbol="BTC/USD"):
    values = {"open": 1.0, "high": 9.0, "low": 0.5, "close": close, "volume": 3.5}
    end = {"timestamp": "2023-10-04T16:00:00.000000Z"}
    return {"symbol": symbol, **values, "trades": 1, "vwap": 1.0, "interval_begin": begun, "interval": 5, **end}


def ohlc(kind, *rows):
    return json.dumps({"channel": "ohlc", "type": kind, "timestamp": "2023-10-04T15:34:59.806315597Z", "data": rows})


def test_candle_is_closed_when_the_next_one_begins():
    codec = KrakenCodec("ws://venue")
    codec.subscribe([BTC])
    stamp_ms = 1_696_433_699_806
    begun = 1_696_433_400
    first = list(
        codec.decode(
            ohlc("snapshot", row("2023-10-04T15:25:00.000000000Z", 2.0), row("2023-10-04T15:30:00.000000000Z", 3.0))
        )
    )
    assert first == [PriceUpdate(BTC, Candle(begun, 1.0, 9.0, 0.5, 3.0, 3.5), False, stamp_ms)]
    (open_again,) = codec.decode(ohlc("update", row("2023-10-04T15:30:00.000000000Z", 4.0)))
    assert (open_again.is_closed, open_again.candle.close) == (False, 4.0)
    closed, following = codec.decode(ohlc("update", row("2023-10-04T15:35:00.000000000Z", 5.0)))
    assert (closed.is_closed, closed.candle.time, closed.candle.close) == (True, begun, 4.0)
    assert (following.is_closed, following.candle.time, following.candle.close) == (False, begun + 300, 5.0)


def test_candle_heard_before_a_new_subscription_is_left_open():
    codec = KrakenCodec("ws://venue")
    codec.subscribe([BTC])
    list(codec.decode(ohlc("update", row("2023-10-04T15:30:00.000000000Z", 4.0))))
    codec.subscribe([BTC])
    (update,) = codec.decode(ohlc("snapshot", row("2023-10-04T15:35:00.000000000Z", 5.0)))
    assert not update.is_closed


def test_answers_to_subscriptions_are_read():
    codec = KrakenCodec("ws://venue")
    assert [json.loads(text) for text in codec.subscribe([BTC, StreamKey("NO/PE", "5m")])] == [
        {"method": "subscribe", "params": {"channel": "ohlc", "symbol": ["BTC/USD", "NO/PE"], "interval": 5}}
    ]
    result = {"channel": "ohlc", "interval": 5, "snapshot": True, "symbol": "BTC/USD"}
    assert list(codec.decode(json.dumps({"method": "subscribe", "result": result, "success": True}))) == [
        Accepted((BTC,))
    ]
    refusal = {"error": "Currency pair not supported NO/PE", "method": "subscribe", "success": False, "symbol": "NO/PE"}
    assert list(codec.decode(json.dumps(refusal))) == [
        Rejected((StreamKey("NO/PE", "5m"),), "Currency pair not supported NO/PE")
    ]
    for text in ('{"channel":"heartbeat"}', '{"method":"pong"}', '{"channel":"status","type":"update","data":[]}'):
        assert list(codec.decode(text)) == []


async def test_bitcoin_is_asked_for_by_its_old_name_and_listed_by_its_new_one():
    async with Kraken() as venue, open_provider("market_relay_kraken", venue.settings) as provider:
        assert [one.symbol for one in await provider.instruments()] == ["BTC/USD", "ETH/USD"]
        assert len(await provider.candles(StreamKey("BTC/USD", "1h"), None, 2**40, 5000)) == 720
        assert venue.asked == [{"pair": "XBTUSD", "interval": "60"}]


async def test_errors_in_bodies_of_status_200_keep_their_meaning():
    wanted = {
        "EQuery:Unknown asset pair": UnknownSymbol,
        "EGeneral:Too many requests": RateLimited,
        "EAPI:Rate limit exceeded": RateLimited,
        "EService:Unavailable": ProviderUnavailable,
        "EGeneral:Internal error": BadAnswer,
    }
    found = {}
    async with Kraken() as venue:
        for text in wanted:
            venue.errors = [text]
            # One each: who asks too often is not asked again for a while.
            async with open_provider("market_relay_kraken", venue.settings) as provider:
                try:
                    await provider.candles(StreamKey("BTC/USD", "1h"), None, 2**40, 5)
                except Exception as error:  # noqa: BLE001 - compared below
                    found[text] = type(error)
    assert found == wanted
