"""The WebSocket contract, sections 2 and 3, over a real socket against the stand-ins."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from providers import BUILTIN
from providers.sandbox import Sandbox, until
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.requests import Options
from tests.conftest import StartRelay
from tests.running import Closed, Message, Running, WsClient, eventually

HERE = str(Path(__file__).parent.parent)
SECRETS = ("sandbox-key", "Traceback", HERE, "/home", "/tmp", "site-packages", ".py", "http://127", "ws://127")


def assert_harmless(message: Message) -> None:
    """No message carries a key, a token, a path or a traceback."""
    text = str(message)
    assert not any(secret in text for secret in SECRETS), text


# -- shapes ----------------------------------------------------------------------------------------


async def test_first_message_is_connected_with_limits(relay: Running) -> None:
    client = await relay.connect(hello=False)
    hello = await client.next()
    assert set(hello) == {"type", "status", "message", "server_time", "epoch", "limits"}
    assert hello["type"] == "status"
    assert hello["status"] == "connected"
    assert hello["limits"] == {"streams": 200, "message_bytes": 4096}
    assert isinstance(hello["server_time"], int)
    assert isinstance(hello["epoch"], str)


async def test_subscription_is_confirmed_then_state_then_updates(client: WsClient) -> None:
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", id=7)
    assert await client.next() == {
        "type": "subscription", "action": "subscribe", "symbol": "BTCUSDT", "interval": "1m", "status": "ok", "id": 7,
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


async def test_snapshot_comes_after_the_state_and_before_updates(client: WsClient) -> None:
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=5, id="a")
    kinds = [await client.next() for _ in range(3)]
    assert [message["type"] for message in kinds] == ["subscription", "status", "snapshot"]
    snapshot = kinds[2]
    assert set(snapshot) == {"type", "symbol", "interval", "candles", "last_is_closed", "complete", "seq"}
    assert len(snapshot["candles"]) == 5
    assert snapshot["complete"] is True


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
    await client.ask("ping", id="flush")
    await client.answer("flush")
    last = [message for message in client.received if message["type"] == "price_update"][-1]
    second = await relay.connect()
    await second.ask("subscribe", symbol="BTCUSDT", interval="1m")
    assert (await second.next())["type"] == "subscription"
    sent = await second.next()
    assert sent["seq"] >= last["seq"]
    assert sent == await client.seen("price_update", seq=sent["seq"])


@pytest.mark.parametrize("request_id", [1, 0, -5, "seven", "", 2**53])
async def test_id_comes_back_as_it_was(client: WsClient, request_id: str | int) -> None:
    for action in ("ping", "list"):
        await client.ask(action, id=request_id)
        answer = await client.next()
        assert answer["id"] == request_id
        assert type(answer["id"]) is type(request_id)
    await client.send({"action": "hop", "id": request_id})
    assert (await client.next())["id"] == request_id


async def test_answers_without_id_have_none(client: WsClient) -> None:
    await client.ask("ping")
    pong = await client.next()
    assert set(pong) == {"type", "server_time"}
    assert pong["type"] == "pong"
    await client.ask("list")
    assert await client.next() == {"type": "subscriptions", "streams": []}


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


async def test_many_streams_are_answered_each_on_its_own(client: WsClient) -> None:
    names = ["BTCUSDT@1s", "NOPE@1m", "EUR/USD@1h", "EUR/USD@1s", "ETHUSDT@1x", "ETHUSDT"]
    await client.ask("subscribe", streams=names, id=9)
    answers = [await client.answer(9) for _ in names]
    assert [answer.get("code", answer["type"]) for answer in answers] == [
        "subscription", "unknown_symbol", "subscription", "unsupported_interval", "unknown_interval", "invalid_request",
    ]  # fmt: skip
    assert [answer.get("symbol") for answer in answers] == ["BTCUSDT", "NOPE", "EUR/USD", "EUR/USD", "ETHUSDT", None]
    await client.ask("list", id=10)
    assert (await client.answer(10))["streams"] == ["BTCUSDT@1s", "EUR/USD@1h"]


async def test_both_exchanges_stream_through_one_relay(client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1s", "EUR/USD@1m")
    crypto = await client.seen("price_update", symbol="BTCUSDT", interval="1s")
    forex = await client.seen("price_update", symbol="EUR/USD", interval="1m")
    assert crypto["candle"]["volume"] >= 0
    assert forex["candle"]["volume"] == 0
    assert forex["ts_event"] is None


async def test_unsubscribed_stream_sends_nothing_more(client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1m", "ETHUSDT@1m")
    await client.seen("price_update", symbol="BTCUSDT")
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m", id=1)
    assert (await client.answer(1))["action"] == "unsubscribe"
    at = len(client.received)
    for _ in range(3):
        await client.update(symbol="ETHUSDT")
    assert not [message for message in client.received[at:] if message.get("symbol") == "BTCUSDT"]


# -- sequence numbers ------------------------------------------------------------------------------


async def test_seq_grows_by_one_and_goes_on_after_the_stream_came_back(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(linger_seconds=0)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    first = [(await client.update())["seq"] for _ in range(5)]
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m")
    await client.until_type("subscription", action="unsubscribe")
    seen = max(message["seq"] for message in client.received if message["type"] == "price_update")
    await eventually(lambda: not relay.hub.streams)
    await until(lambda: not sandbox.binance.subscribed)
    await client.subscribe("BTCUSDT@1m")
    second = [(await client.update())["seq"] for _ in range(5)]
    assert all(b == a + 1 for a, b in pairwise(first))
    assert all(b == a + 1 for a, b in pairwise(second))
    # One update may have been on its way while the client left.
    assert seen < second[0] <= seen + 2


async def test_all_clients_of_a_run_see_one_epoch(relay: Running, relay_with: StartRelay) -> None:
    hellos = []
    for running in (relay, relay, await relay_with()):
        client = await running.connect(hello=False)
        hellos.append((await client.next())["epoch"])
    assert hellos[0] == hellos[1] != hellos[2]


# -- the candle contract ---------------------------------------------------------------------------


def times_of(messages: list[Message], *, is_closed: bool) -> list[int]:
    return [m["candle"]["time"] for m in messages if m["type"] == "price_update" and m["is_closed"] is is_closed]


async def test_every_candle_closes_once_in_order(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s")
    for _ in range(4):
        await client.update(is_closed=True)
    closed = times_of(client.received, is_closed=True)
    assert closed == list(range(closed[0], closed[0] + len(closed)))


@pytest.mark.parametrize("options", [{"bars": 30}, {"bars": 1}, {"bars": 0}, {"closed_only": True, "bars": 10}])
async def test_snapshot_and_live_are_one_sequence(quick: Running, options: dict[str, Any]) -> None:
    client = await quick.connect()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", **options)
    snapshot = await client.until_type("snapshot")
    for _ in range(3):
        await client.update(is_closed=True)
    past = [candle["time"] for candle in snapshot["candles"]]
    assert len(past) == options["bars"]
    if past and not snapshot["last_is_closed"]:
        past.pop()
    times = past + times_of(client.received, is_closed=True)
    assert times == list(range(times[0], times[0] + len(times)))


async def test_since_brings_everything_opened_after_it(relay: Running, client: WsClient) -> None:
    history = (await relay.get("history", symbol="BTCUSDT", interval="1s", limit=20)).body["candles"]
    since = history[0]["time"]
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", since=since)
    snapshot = await client.until_type("snapshot")
    assert snapshot["complete"] is True
    await client.update(is_closed=True)
    past = [candle["time"] for candle in snapshot["candles"]]
    assert past[0] == since + 1
    if not snapshot["last_is_closed"]:
        past.pop()
    times = past + times_of(client.received, is_closed=True)
    assert times == list(range(since + 1, since + 1 + len(times)))


async def test_since_with_bars_brings_at_most_the_last_bars(relay: Running, client: WsClient) -> None:
    history = (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50)).body["candles"]
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=history[0]["time"], bars=5)
    few = await client.until_type("snapshot")
    assert len(few["candles"]) == 5
    assert few["candles"][-1]["time"] >= history[-1]["time"]
    await client.ask("subscribe", symbol="ETHUSDT", interval="1m", since=history[-3]["time"], bars=500)
    all_since = await client.until_type("snapshot", symbol="ETHUSDT")
    assert [candle["time"] for candle in all_since["candles"]][:2] == [history[-2]["time"], history[-1]["time"]]


async def test_since_in_the_future_brings_nothing(client: WsClient) -> None:
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", since=2**53)
    snapshot = await client.until_type("snapshot")
    assert (snapshot["candles"], snapshot["last_is_closed"], snapshot["complete"]) == ([], True, True)


async def test_most_bars_come_in_one_snapshot(client: WsClient) -> None:
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5000)
    snapshot = await client.until_type("snapshot")
    times = [candle["time"] for candle in snapshot["candles"]]
    assert times == list(range(times[0], times[0] + 5000 * 60, 60))


async def test_snapshot_says_when_the_past_is_not_complete(client: WsClient, sandbox: Sandbox) -> None:
    sandbox.binance.faults.answer_rest(500, "{}")
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=10)
    snapshot = await client.until_type("snapshot")
    assert snapshot["complete"] is False


async def test_closed_only_sends_closed_candles_only(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1m", closed_only=True)
    for _ in range(3):
        await client.update(symbol="BTCUSDT")
    updates = [message for message in client.received if message["type"] == "price_update"]
    assert all(message["is_closed"] for message in updates)


async def read_what_is_on_its_way(client: WsClient) -> None:
    """Read on until two pings in a row bring nothing but their pongs."""
    quiet = 0
    while quiet < 2:
        before = len(client.received)
        await client.ask("ping", id=before)
        await client.answer(before)
        quiet = quiet + 1 if len(client.received) == before + 1 else 0


async def test_throttled_client_gets_few_updates_and_always_the_last(relay: Running, sandbox: Sandbox) -> None:
    plain, throttled = await relay.connect(), await relay.connect()
    await plain.subscribe("BTCUSDT@1d")
    began = time.monotonic()
    await throttled.subscribe("BTCUSDT@1d", throttle_ms=700)
    for _ in range(12):
        await plain.update()
    sandbox.binance.faults.mute()
    await read_what_is_on_its_way(plain)
    newest = [message["seq"] for message in plain.received if message["type"] == "price_update"][-1]
    last = await throttled.update(seq=newest)
    most = (time.monotonic() - began) / 0.7 + 2
    assert last["candle"] == (await plain.seen("price_update", seq=newest))["candle"]
    seqs = [message["seq"] for message in throttled.received if message["type"] == "price_update"]
    assert seqs == sorted(set(seqs))
    assert len(seqs) <= most


async def test_held_update_survives_a_change_of_options(relay: Running, sandbox: Sandbox) -> None:
    plain, throttled = await relay.connect(), await relay.connect()
    await plain.subscribe("BTCUSDT@1d")
    await throttled.subscribe("BTCUSDT@1d", throttle_ms=60_000)
    for _ in range(4):
        await plain.update()
    sandbox.binance.faults.mute()
    await read_what_is_on_its_way(plain)
    newest = [message["seq"] for message in plain.received if message["type"] == "price_update"][-1]
    await throttled.subscribe("BTCUSDT@1d")
    assert await throttled.seen("price_update", seq=newest)


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
    seqs = [message["seq"] for message in client.received if message["type"] == "price_update"]
    assert seqs == sorted(set(seqs))


async def test_requests_during_a_fetch_are_all_answered_and_the_last_one_counts(
    relay: Running, client: WsClient, sandbox: Sandbox
) -> None:
    sandbox.binance.faults.delay_rest(0.4)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=3, id=1)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", bars=7, id=2)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", closed_only=True, id=3)
    snapshot = await client.until_type("snapshot")
    assert [m["id"] for m in client.received if m["type"] == "subscription"] == [1, 2, 3]
    assert len(snapshot["candles"]) == 7
    (options,) = (channel.options for channel in next(iter(relay.hub.subscribers)).subscriptions.values())
    assert options == Options(closed_only=True)


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


async def test_a_provider_that_hangs_holds_up_no_snapshot_of_another(client: WsClient, sandbox: Sandbox) -> None:
    await client.subscribe("EUR/USD@1m")
    sandbox.twelve_data.faults.delay_rest(30)
    await client.ask("subscribe", symbol="GBP/USD", interval="1h", bars=5)
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5)
    assert (await client.until_type("snapshot"))["symbol"] == "BTCUSDT"


class Counting:
    """A provider without history: a closed candle every 10 ms."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="counting", api=API_VERSION, title="Counting", asset_classes=("demo",), intervals=("1s",)
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        # An hour ago, so that a hundred candles a second do not run into the future.
        for time_s in itertools.count(int(time.time()) - 3600):
            await asyncio.sleep(0.01)
            for key in watchlist.streams:
                yield PriceUpdate(key, Candle(time_s, 1.0, 1.0, 1.0, 1.0), is_closed=True)


async def test_without_history_the_snapshot_holds_what_the_relay_saw_and_says_so(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Counting))
    first, second = await relay.connect(), await relay.connect()
    await first.ask("subscribe", symbol="X", interval="1s", bars=5)
    snapshot = await first.until_type("snapshot")
    assert (snapshot["candles"], snapshot["complete"]) == ([], False)
    for _ in range(20):
        await first.update()
    await second.ask("subscribe", symbol="X", interval="1s", bars=5)
    snapshot = await second.until_type("snapshot")
    update = await second.update()
    times = [candle["time"] for candle in snapshot["candles"]] + [update["candle"]["time"]]
    assert times == list(range(times[0], times[0] + 6))
    await second.ask("subscribe", symbol="Y", interval="1s", bars=0)
    nothing = await second.until_type("snapshot", symbol="Y")
    assert (nothing["candles"], nothing["complete"]) == ([], True)


# -- errors ----------------------------------------------------------------------------------------

BAD_FRAMES: list[tuple[str, str, tuple[str, ...]]] = [
    ("", "invalid_json", ("JSON",)),
    ("not json", "invalid_json", ("JSON",)),
    ('{"action":"ping"', "invalid_json", ("JSON",)),
    ("{'action':'ping'}", "invalid_json", ("JSON",)),
    ('{"action":"ping"} {"action":"ping"}', "invalid_json", ("JSON",)),
    ('{"action":"ping","id":NaN}', "invalid_json", ("JSON",)),
    ('"\\ud800"', "invalid_json", ("JSON",)),
    ("[" * 2000, "invalid_json", ("JSON",)),
    ("null", "invalid_request", ("null", "object")),
    ("42", "invalid_request", ("42", "object")),
    ('"ping"', "invalid_request", ("ping", "object")),
    ('[{"action":"ping"}]', "invalid_request", ("action", "object")),
    ("{}", "invalid_request", ("subscribe", "unsubscribe", "list", "ping")),
    ('{"action":null}', "invalid_request", ("subscribe", "unsubscribe", "list", "ping")),
    ('{"action":"SUBSCRIBE"}', "unknown_action", ("'SUBSCRIBE'", "subscribe, unsubscribe, list, ping")),
    ('{"action":["ping"]}', "unknown_action", ('["ping"]', "subscribe")),
    ('{"action":"ping","id":1.5}', "invalid_request", ("1.5", "string", "integer")),
    ('{"action":"ping","id":true}', "invalid_request", ("true", "string", "integer")),
    ('{"action":"ping","id":{"a":1}}', "invalid_request", ('{"a":1}', "string", "integer")),
    ('{"action":"subscribe"}', "invalid_request", ("symbol", "BTCUSDT")),
    ('{"action":"subscribe","symbol":"BTCUSDT"}', "invalid_request", ("interval", "1m")),
    ('{"action":"subscribe","symbol":7,"interval":"1m"}', "invalid_request", ("symbol 7", "BTCUSDT")),
    ('{"action":"subscribe","streams":[]}', "invalid_request", ("[]", "BTCUSDT@1m")),
    ('{"action":"subscribe","streams":"BTCUSDT@1m"}', "invalid_request", ("'BTCUSDT@1m'", "list")),
    ('{"action":"subscribe","streams":[5]}', "invalid_request", ("5", "SYMBOL@INTERVAL")),
    ('{"action":"subscribe","streams":["BTCUSDT"]}', "invalid_request", ("'BTCUSDT'", "SYMBOL@INTERVAL")),
    ('{"action":"subscribe","streams":["@1m"]}', "invalid_request", ("'@1m'", "SYMBOL@INTERVAL")),
    (
        '{"action":"subscribe","streams":[' + ",".join(f'"A{n}@1m"' for n in range(101)) + "]}",
        "invalid_request",
        ("101", "100"),
    ),
    (
        '{"action":"subscribe","streams":["BTCUSDT@1m"],"symbol":"BTCUSDT"}',
        "invalid_request",
        ("streams", "symbol", "both"),
    ),
    ('{"action":"subscribe","symbol":"NOPE","interval":"1m"}', "unknown_symbol", ("'NOPE'", "symbols")),
    ('{"action":"subscribe","symbol":"BTC USDT","interval":"1m"}', "unknown_symbol", ("'BTC USDT'", "48")),
    ('{"action":"subscribe","symbol":"_BTC","interval":"1m"}', "unknown_symbol", ("'_BTC'", "letter or digit")),
    ('{"action":"subscribe","symbol":"' + "A" * 49 + '","interval":"1m"}', "unknown_symbol", ("AAA", "48")),
    ('{"action":"subscribe","symbol":"binance:EUR/USD","interval":"1m"}', "unknown_symbol", ("EUR/USD", "Binance")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"2m"}', "unknown_interval", ("'2m'", "1s 1m 3m")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1Y"}', "unknown_interval", ("'1Y'", "1s 1m 3m")),
    ('{"action":"subscribe","symbol":"EUR/USD","interval":"1s"}', "unsupported_interval", ("1s", "1m 5m 15m")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":-1}', "invalid_request", ("-1", "0 to 5000")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":5001}', "invalid_request", ("5001", "5000")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":"9"}', "invalid_request", ("'9'", "whole")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":true}', "invalid_request", ("true", "whole")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","since":-1}', "invalid_request", ("since -1", "0")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","since":1.5}', "invalid_request", ("1.5", "whole")),
    (
        '{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","throttle_ms":60001}',
        "invalid_request",
        ("60001", "0 to 60000"),
    ),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","closed_only":1}', "invalid_request", ("1", "true")),
    ('{"action":"unsubscribe","symbol":"BTCUSDT","interval":"1m"}', "not_subscribed", ("BTCUSDT@1m", "list")),
    ('{"action":"unsubscribe","symbol":"BTCUSDT","interval":"9m"}', "unknown_interval", ("'9m'", "1m")),
]


async def test_bad_frames_get_their_errors_and_harm_nobody(relay: Running, client: WsClient) -> None:
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    await other.update()
    at = len(other.received)
    wrong = []
    for text, code, words in BAD_FRAMES:
        await client.send_text(text)
        error = await client.next()
        assert_harmless(error)
        if (error["type"], error["code"]) != ("error", code) or not all(word in error["message"] for word in words):
            wrong.append((text[:80], error))
    assert not wrong
    await client.ask("ping", id="alive")
    assert (await client.next())["type"] == "pong"
    for _ in range(2):
        await other.update(is_closed=True)
    assert {message["type"] for message in other.received[at:]} == {"price_update"}
    seqs = [message["seq"] for message in other.received if message["type"] == "price_update"]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_errors_of_a_stream_name_symbol_and_interval(client: WsClient) -> None:
    await client.ask("subscribe", symbol="NOPE", interval="1m", id=7)
    error = await client.next()
    assert set(error) == {"type", "code", "message", "symbol", "interval", "id"}
    assert (error["symbol"], error["interval"], error["id"]) == ("NOPE", "1m", 7)


async def test_binary_frame_is_an_invalid_request(client: WsClient) -> None:
    await client.socket.send_bytes(b'{"action":"ping"}')
    error = await client.next()
    assert (error["code"], "text" in error["message"]) == ("invalid_request", True)
    await client.ask("ping")
    assert (await client.next())["type"] == "pong"


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


async def test_provider_without_key_says_how_to_set_it(relay_with: StartRelay) -> None:
    client = await (await relay_with(tables={"twelve_data": {"api_key": None}})).connect()
    await client.ask("subscribe", streams=["EUR/USD@1m", "BTCUSDT@1m"], id=1)
    answers = [await client.answer(1) for _ in range(2)]
    assert answers[0]["code"] == "provider_unavailable"
    assert "RELAY_TWELVE_DATA_API_KEY" in answers[0]["message"]
    assert answers[1]["type"] == "subscription"
    await client.update(symbol="BTCUSDT")


async def test_requests_above_the_rate_are_refused_then_the_client_is_closed(relay: Running) -> None:
    other, flooding = await relay.connect(), await relay.connect()
    await other.subscribe("BTCUSDT@1s")

    async def flood() -> None:
        for number in range(3000):
            await flooding.send({"action": "ping", "id": number})

    task = asyncio.create_task(flood())
    closed = await flooding.closing()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (closed.code, closed.reason) == (4002, "rate limited")
    refused = [message for message in flooding.received if message["type"] == "error"]
    assert {message["code"] for message in refused} == {"rate_limited"}
    assert refused[0]["retry_after"] >= 0
    before = flooding.received[: flooding.received.index(refused[0])]
    assert refused[0]["id"] == sum(message["type"] == "pong" for message in before)
    await other.update()


async def test_failure_inside_the_relay_is_internal_and_tells_nothing(
    relay: Running, client: WsClient, caplog: pytest.LogCaptureFixture
) -> None:
    # The connection's own directory is taken away: the relay fails, not the request.
    directory = relay.clients.directory
    del relay.clients.directory
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", id=1)
    error = await client.next()
    assert (error["code"], error["id"]) == ("internal", 1)
    assert "directory" not in error["message"]
    assert_harmless(error)
    assert "Traceback" in caplog.text
    relay.clients.directory = directory
    await client.subscribe("BTCUSDT@1m")
    await client.update()


async def test_failure_while_the_past_is_fetched_is_answered_too(
    relay: Running, client: WsClient, caplog: pytest.LogCaptureFixture
) -> None:
    history = relay.clients.history
    del relay.clients.history
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5, id=1)
    assert (await client.next())["code"] == "internal"
    relay.clients.history = history
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5, id=2)
    assert (await client.answer(2))["type"] == "subscription"


# -- closing ---------------------------------------------------------------------------------------


def ping_of(size: int) -> str:
    text = '{"action":"ping","id":"%s"}'
    return text % ("x" * (size - len(text) + 2))


async def test_message_of_4096_bytes_is_taken(client: WsClient) -> None:
    await client.send_text(ping_of(4096))
    assert (await client.next())["type"] == "pong"


@pytest.mark.parametrize("size", [4097, 5000, 70_000, 3_000_000])
async def test_larger_message_closes_the_connection_with_1009(relay: Running, client: WsClient, size: int) -> None:
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    with pytest.raises(Closed) as closed:  # noqa: PT012  the send itself may meet the closed connection
        with contextlib.suppress(ConnectionError):
            await client.send_text(ping_of(size))
        await client.next()
    assert (closed.value.code, closed.value.reason) == (1009, "message too big")
    await other.update()


async def test_size_counts_bytes_not_letters(client: WsClient) -> None:
    text = '{"action":"ping","id":"%s"}' % ("é" * 2040)
    assert len(text) < 4096 < len(text.encode())
    await client.send_text(text)
    assert (await client.closing()).code == 1009


async def test_fragments_are_counted_together(client: WsClient) -> None:
    writer = client.socket._writer
    body = ping_of(5000).encode()
    transport = writer.transport
    assert isinstance(transport, asyncio.WriteTransport)
    mask = bytes(4)
    transport.write(b"\x01\xfe" + (3000).to_bytes(2, "big") + mask + body[:3000])
    transport.write(b"\x80\xfe" + (2000).to_bytes(2, "big") + mask + body[3000:])
    assert (await client.closing()).code == 1009


async def test_too_many_invalid_messages_close_with_4001(relay: Running) -> None:
    other, client = await relay.connect(), await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    began = time.monotonic()
    for _ in range(150):
        await client.send_text("nonsense")
    closed = await client.closing()
    assert (closed.code, closed.reason) == (4001, "too many invalid messages")
    # A hundred at once, and one more a second.
    assert 100 <= len(client.received) <= 105 + time.monotonic() - began
    await other.update()


async def test_unknown_symbols_alone_do_not_close_the_connection(client: WsClient) -> None:
    for number in range(3):
        await client.ask("subscribe", streams=[f"NO{number}X{n}@1m" for n in range(100)], id=number)
        for _ in range(100):
            assert (await client.answer(number))["code"] == "unknown_symbol"
    await client.send_text("nonsense")
    await client.ask("ping", id="alive")
    assert (await client.answer("alive"))["type"] == "pong"


async def test_shutdown_closes_clients_with_1001(relay: Running) -> None:
    clients = [await relay.connect() for _ in range(20)]
    for client in clients:
        await client.subscribe("BTCUSDT@1s", "EUR/USD@1m")
    closing = [asyncio.create_task(client.closing()) for client in clients]
    await relay.app.shutdown()
    for task in closing:
        closed = await task
        assert (closed.code, closed.reason) == (1001, "server shutdown")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await relay.connect()
    assert refused.value.status == 503
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) >= 1


async def test_slow_consumer_is_closed_with_4000_and_resumes_with_since(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    seen = await client.update(is_closed=True)
    subscriber = next(iter(relay.hub.subscribers))
    subscriber.on_slow(subscriber, "told so by the test")
    closed = await client.closing()
    assert (closed.code, closed.reason) == (4000, "slow consumer")
    last = [m for m in client.received if m["type"] == "price_update" and m["is_closed"]][-1]["candle"]["time"]
    assert last >= seen["candle"]["time"]
    again = await relay.connect()
    await again.ask("subscribe", symbol="BTCUSDT", interval="1s", since=last)
    snapshot = await again.until_type("snapshot")
    update = await again.update(is_closed=True)
    times = [candle["time"] for candle in snapshot["candles"]]
    if times and not snapshot["last_is_closed"]:
        times.pop()
    times += [update["candle"]["time"]]
    assert times == list(range(last + 1, last + 1 + len(times)))


async def test_relay_pings_every_20_s_and_waits_10(relay: Running) -> None:
    assert (relay.clients.ping_interval_s, relay.clients.pong_timeout_s) == (20, 10)


async def test_relay_pings_and_keeps_a_client_that_answers(relay: Running) -> None:
    # The next ping waits for the answer to the last one.
    relay.clients.ping_interval_s = 0.1
    client = await relay.connect(autoping=False)
    for _ in range(3):
        frame = await client.socket.receive(10)
        assert frame.type is aiohttp.WSMsgType.PING
        await client.socket.pong(frame.data)
    await client.ask("ping", id=1)
    while (frame := await client.socket.receive(10)).type is aiohttp.WSMsgType.PING:
        await client.socket.pong(frame.data)
    assert frame.type is aiohttp.WSMsgType.TEXT


async def test_client_that_answers_no_ping_is_dropped(relay: Running) -> None:
    relay.clients.ping_interval_s, relay.clients.pong_timeout_s = 0.1, 0.3
    client = await relay.connect(autoping=False)
    assert (await client.socket.receive(10)).type is aiohttp.WSMsgType.PING
    while (frame := await client.socket.receive(10)).type is aiohttp.WSMsgType.PING:
        pass
    assert frame.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    await eventually(lambda: not relay.hub.subscribers)
    assert relay.access.clients == 0


async def test_clients_own_ping_is_answered(client: WsClient) -> None:
    await client.socket.ping(b"are you there")
    await client.ask("ping")
    await client.next()
    # aiohttp answers pongs itself; that the connection lives on is what shows.
    await client.ask("ping")
    assert (await client.next())["type"] == "pong"


async def test_client_that_vanishes_leaves_nothing_behind(relay: Running, sandbox: Sandbox) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m")
    await client.ask("subscribe", symbol="ETHUSDT", interval="1m", bars=100)
    transport = client.socket._writer.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()
    await eventually(lambda: not relay.hub.subscribers and not relay.hub.streams and not relay.clients.connections)
    await until(lambda: not sandbox.binance.subscribed)
    assert relay.access.clients == 0


async def test_compressed_messages_are_measured_as_they_are_unpacked(relay_with: StartRelay) -> None:
    relay = await relay_with(compression=True)
    client = await relay.connect(compress=15)
    await client.send_text(ping_of(4096))
    assert (await client.next())["type"] == "pong"
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    for size in (4097, 1_000_000):
        client = await relay.connect(compress=15)
        await client.send_text(ping_of(size))
        assert (await client.closing()).code == 1009
