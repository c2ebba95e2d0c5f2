"""Subscribe and unsubscribe: names, confirmation, state, options, how many streams, and the updates that follow."""

from itertools import pairwise

import pytest

from relay.streams.gaps import SeriesGap
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox


async def test_subscription_is_confirmed_then_state_then_updates(client: WsClient) -> None:
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", id=7)
    confirmed = await client.next()
    assert isinstance(confirmed.pop("revision"), int)
    assert confirmed == {
        "type": "subscription", "action": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "provider": "binance",
        "status": "ok", "id": 7,
    }  # fmt: skip
    state = await client.next()
    assert state["type"] == "status"
    assert (state["status"], state["symbol"], state["interval"]) == ("connecting", "BTCUSDT", "1m")
    live = await client.next()
    assert (live["type"], live["status"]) == ("status", "connected")
    update = await client.next()
    assert set(update) == {"type", "symbol", "interval", "candle", "is_closed", "seq", "ts_event"}
    assert set(update["candle"]) == {"time", "open", "high", "low", "close", "volume"}
    assert isinstance(update["candle"]["time"], int)
    assert all(isinstance(update["candle"][name], float) for name in ("open", "high", "low", "close", "volume"))
    assert update["is_closed"] is False
    assert isinstance(update["ts_event"], int)


async def test_a_live_stream_sends_no_state_to_a_new_subscriber(relay: Running, client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    second = await relay.connect()
    await second.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=2)
    assert [(await second.next())["type"] for _ in range(3)] == ["subscription", "snapshot", "price_update"]


async def test_last_known_candle_is_sent_at_once_to_a_second_subscriber(
    relay: Running, client: WsClient, sandbox: Sandbox
) -> None:
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    sandbox.binance.faults.mute()
    await client.settle()
    last = client.updates[-1]
    second = await relay.connect()
    await second.ask("subscribe", symbol="BTCUSDT", interval="1m")
    assert (await second.next())["type"] == "subscription"
    sent = await second.next()
    assert sent["seq"] >= last["seq"]
    assert sent == await client.seen("price_update", seq=sent["seq"])


@pytest.mark.parametrize(
    ("symbol", "interval", "canonical"),
    [
        ("btcusdt", "1m", ("BTCUSDT", "1m")),
        ("BtcUsdt", "1H", ("BTCUSDT", "1h")),
        ("binance:BTCUSDT", "1D", ("BTCUSDT", "1d")),
        ("BINANCE:btcusdt", "1W", ("BTCUSDT", "1w")),
        ("btcusdt", "1M", ("BTCUSDT", "1M")),
        ("eur/usd", "4H", ("EUR/USD", "4h")),
        ("twelve_data:eur/usd", "1h", ("EUR/USD", "1h")),
        ("币安人生usdt", "1m", ("币安人生USDT", "1m")),
    ],
)
async def test_names_are_taken_in_any_case_and_answered_canonically(
    client: WsClient, symbol: str, interval: str, canonical: tuple[str, str]
) -> None:
    await client.ask("subscribe", symbol=symbol, interval=interval, id=1)
    answer = await client.answer(1)
    assert (answer["symbol"], answer["interval"]) == canonical
    update = await client.seen("price_update")
    assert (update["symbol"], update["interval"]) == canonical
    await client.ask("list", id=2)
    assert (await client.answer(2))["streams"] == ["@".join(canonical)]
    await client.ask("unsubscribe", streams=[f"{symbol}@{interval}"], id=3)
    assert (await client.answer(3))["symbol"] == canonical[0]
    await client.ask("list", id=4)
    assert (await client.answer(4))["streams"] == []


async def test_both_exchanges_stream_through_one_relay(client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1s", "EUR/USD@1m")
    crypto = await client.seen("price_update", symbol="BTCUSDT", interval="1s")
    forex = await client.seen("price_update", symbol="EUR/USD", interval="1m")
    assert crypto["candle"]["volume"] >= 0
    assert forex["candle"]["volume"] == 0
    assert forex["ts_event"] is None


async def test_every_candle_closes_once_in_order(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s")
    for _ in range(4):
        await client.update(is_closed=True)
    closed = client.closed_times
    assert closed == list(range(closed[0], closed[0] + len(closed)))


async def test_seq_grows_by_one_and_goes_on_after_the_stream_came_back(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(linger_seconds=0)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    first = [(await client.update())["seq"] for _ in range(5)]
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m")
    await client.until_type("subscription", action="unsubscribe")
    seen = max(message["seq"] for message in client.updates)
    await eventually(lambda: not relay.hub.streams)
    await eventually(lambda: not sandbox.binance.subscribed)
    await client.subscribe("BTCUSDT@1m")
    second = [(await client.update())["seq"] for _ in range(5)]
    assert all(b == a + 1 for a, b in pairwise(first))
    assert all(b == a + 1 for a, b in pairwise(second))
    # One update may have been on its way while the client left.
    assert seen < second[0] <= seen + 2


async def test_closed_only_sends_closed_candles_only(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1m", closed_only=True)
    for _ in range(3):
        await client.update(symbol="BTCUSDT")
    assert all(message["is_closed"] for message in client.updates)


async def test_subscribing_again_replaces_options_and_repeats_nothing(quick: Running) -> None:
    client = await quick.connect()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=5, id=1)
    first = await client.until_type("snapshot")
    await client.update()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=10, closed_only=True, id=2)
    second = await client.until_type("snapshot")
    before = {candle["time"] for candle in first["candles"]}
    assert not before & {candle["time"] for candle in second["candles"]}
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", id=3)
    await client.answer(3)
    for _ in range(2):
        await client.update()
    await client.ask("list", id=4)
    assert (await client.answer(4))["streams"] == ["BTCUSDT@1s"]
    seqs = [message["seq"] for message in client.updates]
    assert seqs == sorted(set(seqs))


async def test_unsubscribed_stream_sends_nothing_more(client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1m", "ETHUSDT@1m")
    await client.seen("price_update", symbol="BTCUSDT")
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m", id=1)
    assert (await client.answer(1))["action"] == "unsubscribe"
    at = len(client.received)
    for _ in range(3):
        await client.update(symbol="ETHUSDT")
    assert not [message for message in client.received[at:] if message.get("symbol") == "BTCUSDT"]


async def test_unsubscribing_during_a_fetch_answers_both(relay: Running, client: WsClient, sandbox: Sandbox) -> None:
    sandbox.binance.faults.delay_rest(0.4)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=3, id=1)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1M", bars=3, id=2)
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1M", id=3)
    assert [(await client.next()).get("id") for _ in range(2)] == [2, 3]
    snapshot = await client.until_type("snapshot")
    assert snapshot["interval"] == "1m"
    await client.ask("list", id=4)
    assert (await client.answer(4))["streams"] == ["BTCUSDT@1m"]


async def test_too_many_subscriptions_of_a_client(relay_with: StartRelay) -> None:
    client = await (await relay_with(max_streams_per_client=2)).connect()
    await client.subscribe("BTCUSDT@1m", "ETHUSDT@1m")
    await client.ask("subscribe", streams=["BNBUSDT@1m"], id=1)
    error = await client.answer(1)
    assert (error["code"], error["symbol"]) == ("too_many_subscriptions", "BNBUSDT")
    assert "2" in error["message"]
    # A stream that it has already is no further one.
    await client.ask("subscribe", streams=["BTCUSDT@1m"], bars=1, id=2)
    assert (await client.answer(2))["type"] == "subscription"
    await client.ask("unsubscribe", streams=["BTCUSDT@1m"], id=3)
    await client.ask("subscribe", streams=["BNBUSDT@1m"], bars=1, id=4)
    assert (await client.answer(4))["type"] == "subscription"


async def test_too_many_streams_of_the_relay(relay_with: StartRelay) -> None:
    running = await relay_with(max_streams=1)
    first, second = await running.connect(), await running.connect()
    await first.subscribe("BTCUSDT@1m")
    await second.subscribe("BTCUSDT@1m")
    for options in ({}, {"bars": 3}):
        await second.ask("subscribe", symbol="ETHUSDT", interval="1m", id=1, **options)
        assert (await second.answer(1))["code"] == "too_many_subscriptions"


async def test_what_is_missing_after_the_last_known_candle_is_told_to_who_comes_later(
    relay: Running, client: WsClient, sandbox: Sandbox
) -> None:
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    sandbox.binance.faults.mute()
    (stream,) = relay.hub.streams.values()
    assert stream.series.last is not None
    missing = SeriesGap(stream.series.last.time + 60, stream.series.last.time + 120)
    stream.series.gaps.leave(missing)
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1m")
    told = await other.seen("gap")
    assert (told["from"], told["to"]) == missing
    assert other.updates[-1]["candle"]["time"] == stream.series.last.time
