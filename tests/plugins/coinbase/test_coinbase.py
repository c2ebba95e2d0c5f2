"""The provider against a stand-in, and its codec against messages in Coinbase's format."""

import json

from coinbase_standin import Coinbase
from market_relay_coinbase import CoinbaseCodec

from relay import Accepted, Candle, PriceUpdate, Rejected, StreamKey
from relay.testing import WatchedFeed, check_provider, open_provider, sped_up

BTC = StreamKey("BTC-USD", "5m")


@sped_up
async def test_conformance():
    async with Coinbase() as venue:
        report = await check_provider(
            "market_relay_coinbase", symbol="BTC-USD", interval="5m", settings=venue.settings, watch_s=900
        )
    assert {"closing", "live values of BTC-USD@5m"} <= set(report.checked)


def row(start, close, product_id="BTC-USD"):
    values = {"high": "9.5", "low": "0.5", "open": "1.0", "close": close, "volume": "42.15000000"}
    return {"start": str(start), **values, "product_id": product_id}


def candles(number, kind, *rows):
    envelope = {"channel": "candles", "client_id": "", "timestamp": "2026-04-07T14:30:05.250000Z"}
    return json.dumps({**envelope, "sequence_num": number, "events": [{"type": kind, "candles": rows}]})


def test_candle_is_closed_when_the_next_one_begins():
    codec = CoinbaseCodec("ws://venue")
    codec.subscribe([BTC])
    snapshot = list(codec.decode(candles(0, "snapshot", row(900, "3.0"), row(600, "2.0"), row(300, "1.0"))))
    assert snapshot == [PriceUpdate(BTC, Candle(900, 1.0, 9.5, 0.5, 3.0, 42.15), False, 1_775_572_205_250)]
    again, closed, following = codec.decode(candles(1, "update", row(1200, "5.0"), row(900, "4.0")))
    assert (again.is_closed, again.candle.time, again.candle.close) == (False, 900, 4.0)
    assert (closed.is_closed, closed.candle.time, closed.candle.close) == (True, 900, 4.0)
    assert (following.is_closed, following.candle.time, following.candle.close) == (False, 1200, 5.0)


def test_candle_is_left_open_when_messages_were_lost():
    codec = CoinbaseCodec("ws://venue")
    codec.subscribe([BTC])
    list(codec.decode(candles(7, "update", row(900, "3.0"))))
    (update,) = codec.decode(candles(9, "update", row(1200, "5.0")))
    assert not update.is_closed


def test_answers_to_subscriptions_are_read():
    codec = CoinbaseCodec("ws://venue")
    nope = StreamKey("NO-PE", "5m")
    assert [json.loads(text) for text in codec.subscribe([BTC, nope])] == [
        {"type": "subscribe", "channel": "candles", "product_ids": ["BTC-USD", "NO-PE"]}
    ]
    refusal = json.dumps({"type": "error", "message": "NO-PE is not a valid product"})
    assert list(codec.decode(refusal)) == [Rejected((BTC, nope), "NO-PE is not a valid product")]
    told = {"channel": "subscriptions", "sequence_num": 0, "events": [{"subscriptions": {"candles": ["BTC-USD"]}}]}
    assert list(codec.decode(json.dumps(told))) == [Accepted((BTC,))]
    assert list(codec.decode(refusal)) == [Rejected((nope,), "NO-PE is not a valid product")]


async def test_heartbeats_are_asked_for_first():
    async with (
        Coinbase() as venue,
        open_provider("market_relay_coinbase", venue.settings) as provider,
        WatchedFeed(provider, [BTC]) as feed,
    ):
        assert await feed.until(lambda: feed.updates, 5)
    assert [message["channel"] for message in venue.messages] == ["heartbeats", "candles"]


async def test_history_crosses_a_hole_and_begins_with_the_listing():
    async with Coinbase() as venue, open_provider("market_relay_coinbase", venue.settings) as provider:
        venue.hole = range(venue.began + 86_400, venue.began + 15 * 86_400)
        first = await provider.candles(BTC, 0, 2**31, 289)
        assert [first[0].time, first[287].time, first[288].time] == [
            venue.began,
            venue.began + 86_400 - 300,
            venue.began + 15 * 86_400,
        ]
        newest = await provider.candles(BTC, None, int(venue.now()), 5000)
        after = (int(venue.now()) - venue.hole.stop) // 300 + 1
        assert (newest[0].time, newest[288].time, len(newest)) == (venue.began, venue.hole.stop, 288 + after)
        assert len(venue.asked) < 60


async def test_other_names_of_a_product_are_not_listed():
    async with Coinbase() as venue, open_provider("market_relay_coinbase", venue.settings) as provider:
        assert [one.symbol for one in await provider.instruments()] == ["BTC-USD", "ETH-USD"]
