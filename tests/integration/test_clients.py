"""Clients over each transport: how they are greeted, what each stream is answered and told, and how they leave."""

import asyncio
import dataclasses
import time
from typing import Any

import pytest

from relay.config.tokens import parse_tokens
from tests.conftest import StartRelay
from tests.integration.test_connection import assert_harmless
from tests.integration.test_http import assert_problem
from tests.support.conditions import eventually
from tests.support.running_relay import Message, Reader, Running
from tests.support.sandbox import Sandbox
from tests.support.transports import Transport


async def test_first_message_is_connected_with_limits_and_the_epoch_of_the_run(
    relay: Running, relay_with: StartRelay, over: Transport
) -> None:
    greetings = [(await over.subscriber(one, "BTCUSDT@1m")).received[0] for one in (relay, relay, await relay_with())]
    for greeting in greetings:
        assert set(greeting) == {"type", "status", "message", "server_time", "epoch", "store", "limits"}
        assert (greeting["type"], greeting["status"]) == ("status", "connected")
        assert greeting["limits"] == {"streams": 200, "message_bytes": 4096}
        assert abs(greeting["server_time"] - time.time()) < 2
    first, again, other = [greeting["epoch"] for greeting in greetings]
    assert first == again != other


# -- each stream of a request ----------------------------------------------------------------------

REFUSED: list[tuple[str, str, tuple[str, ...]]] = [
    ("NOPE@1m", "unknown_symbol", ("'NOPE'", "symbols")),
    ("BTC USDT@1m", "unknown_symbol", ("'BTC USDT'", "48")),
    ("_BTC@1m", "unknown_symbol", ("'_BTC'", "letter or digit")),
    ("A" * 49 + "@1m", "unknown_symbol", ("AAA", "48")),
    ("binance:EUR/USD@1m", "unknown_symbol", ("EUR/USD", "Binance")),
    ("BTCUSDT@2m", "unknown_interval", ("'2m'", "1s 1m 3m")),
    ("BTCUSDT@1Y", "unknown_interval", ("'1Y'", "1s 1m 3m")),
    ("EUR/USD@1s", "unsupported_interval", ("1s", "1m 3m 5m 15m")),
    ("BTCUSDT", "invalid_request", ("'BTCUSDT'", "SYMBOL@INTERVAL")),
    ("@1m", "invalid_request", ("'@1m'", "SYMBOL@INTERVAL")),
]


async def test_each_stream_is_answered_on_its_own_and_a_bad_name_harms_no_other(reader: Reader) -> None:
    await reader.ask("subscribe", streams=["BTCUSDT@1s", *(name for name, _, _ in REFUSED), "eur/usd@1H"])
    answers: list[Message] = []
    while len(answers) < len(REFUSED) + 2:
        message = await reader.next()
        if message["type"] in ("subscription", "error"):
            answers.append(message)
    assert [answer["type"] for answer in answers] == ["subscription", *["error"] * len(REFUSED), "subscription"]
    for answer, (name, code, words) in zip(answers[1:-1], REFUSED, strict=True):
        assert answer["code"] == code
        assert all(word in answer["message"] for word in words), answer
        assert_harmless(answer)
        if code != "invalid_request":
            assert f"{answer['symbol']}@{answer['interval']}" == name
    named = {"type", "action", "status", "symbol", "interval", "provider", "revision"}
    assert set(answers[-1]) == named
    # By their canonical names.
    assert [(one["symbol"], one["interval"], one["provider"], one["status"]) for one in (answers[0], answers[-1])] == [
        ("BTCUSDT", "1s", "binance", "ok"), ("EUR/USD", "1h", "twelve_data", "ok"),
    ]  # fmt: skip
    for symbol in ("BTCUSDT", "EUR/USD"):
        await reader.seen("price_update", symbol=symbol)


OPTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"bars": -1}, ("bars", "-1", "0 to 5000")),
    ({"bars": 5001}, ("bars", "5001", "5000")),
    ({"bars": "nine"}, ("bars", "'nine'", "whole")),
    ({"since": -1}, ("since", "-1")),
    ({"since": 1_764_000_000_000}, ("since", "1764000000000", "did you mean 1764000000?")),
    ({"throttle_ms": 60_001}, ("throttle_ms", "60001", "0 to 60000")),
    ({"closed_only": "perhaps"}, ("closed_only", "'perhaps'", "true")),
]


async def test_options_that_make_no_sense_are_refused_with_what_would(relay: Running, over: Transport) -> None:
    wrong = []
    for options, words in OPTIONS:
        refused = await over.refused_options(relay, "BTCUSDT@1m", **options)
        if refused["code"] != "invalid_request" or not all(word in refused["message"] for word in words):
            wrong.append((options, refused))
    assert not wrong
    names = [f"A{number}@1m" for number in range(101)]
    refused = await over.refused_options(relay, *names)
    assert refused["code"] == "invalid_request"
    assert "101" in refused["message"]
    assert "100" in refused["message"]


async def test_since_in_the_future_is_refused(reader: Reader) -> None:
    await reader.ask("subscribe", streams=["btcusdt@1m"], since=99_999_999_999)
    refusal = await reader.error()
    said = "since 99999999999 (5138-11-16T09:46:39+00:00) is in the future; there are no candles yet"
    assert refusal["message"] == said
    assert (refusal["code"], refusal["symbol"], refusal["interval"]) == ("invalid_request", "BTCUSDT", "1m")


async def test_a_stream_that_is_named_twice_is_sent_once(quick: Running, over: Transport) -> None:
    client = await over.subscriber(quick, "BTCUSDT@1s", "btcusdt@1S", bars=3)
    while len(client.closed_times) < 3:
        await client.next()
    assert len([message for message in client.received if message["type"] == "snapshot"]) == 1
    times = client.told("BTCUSDT")
    assert times == list(range(times[0], times[0] + len(times)))


async def test_provider_without_key_says_how_to_set_it(relay_with: StartRelay, over: Transport) -> None:
    client = await over.reader(await relay_with(tables={"twelve_data": {"api_key": None}}))
    await client.ask("subscribe", streams=["EUR/USD@1m", "BTCUSDT@1m"])
    refused = await client.error()
    assert refused["code"] == "provider_unavailable"
    assert "RELAY_TWELVE_DATA_API_KEY" in refused["message"]
    await client.update(symbol="BTCUSDT")


async def test_failure_inside_the_relay_is_internal_and_tells_nothing(
    relay: Running, over: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    client = await over.reader(relay)
    # The connections' own directory is taken away: the relay fails, not the request.
    directory = relay.clients.context.directory
    del relay.clients.context.directory
    await client.ask("subscribe", symbol="BTCUSDT", interval="1m")
    error = await client.error()
    assert error["code"] == "internal"
    assert "directory" not in error["message"]
    assert_harmless(error)
    assert "Traceback" in caplog.text
    relay.clients.context.directory = directory
    await (await over.subscriber(relay, "BTCUSDT@1m")).update()


async def test_failure_while_the_past_is_fetched_is_answered_too(
    relay: Running, over: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(relay.clients.context.history, "candles", None)
        client = await over.reader(relay)
        await client.ask("subscribe", symbol="BTCUSDT", interval="1m", bars=5)
        assert (await client.error())["code"] == "internal"
    await over.subscriber(relay, "BTCUSDT@1m", bars=5)


# -- what they are told ----------------------------------------------------------------------------


async def test_a_stream_says_why_it_is_not_live_to_all_and_to_who_comes_and_misses_nothing(
    quick: Running, over: Transport, fast: Sandbox
) -> None:
    client = await over.subscriber(quick, "BTCUSDT@1s", "ETHUSDT@1m")
    await client.update(symbol="BTCUSDT", is_closed=True)
    # A stream that is live says nothing of its state, and sends the newest candle that is known.
    live = await over.subscriber(quick, "BTCUSDT@1s")
    kinds = [(await live.next())["type"] for _ in range(2)]
    assert kinds == ["price_update", "price_update"]
    update = live.updates[0]
    assert {"symbol", "interval", "candle", "is_closed", "seq", "ts_event"} <= set(update)
    assert set(update["candle"]) == {"time", "open", "high", "low", "close", "volume"}
    fast.binance.faults.refuse(seconds=1.0)
    fast.binance.faults.drop()
    lost = await client.until_type("status", status="reconnecting", symbol="BTCUSDT")
    assert (lost["interval"], bool(lost["message"])) == ("1s", True)
    late = await over.subscriber(quick, "BTCUSDT@1s", bars=3)
    said = late.received[2] if len(late.received) > 2 else await late.next()
    assert (said["type"], said["status"]) == ("status", "reconnecting")
    await client.until_type("status", status="connected", symbol="BTCUSDT")
    missed = await client.seen("price_update", symbol="BTCUSDT", is_closed=True, backfilled=True)
    while client.told("BTCUSDT")[-1] <= missed["candle"]["time"] + 2:
        await client.next()
    times = client.told("BTCUSDT")
    assert times == list(range(times[0], times[0] + len(times)))
    seqs = [one["seq"] for one in client.updates if one["symbol"] == "BTCUSDT"]
    assert seqs == sorted(set(seqs))


# -- limits ----------------------------------------------------------------------------------------


async def test_streams_and_candles_above_the_limits_of_a_client_are_refused_one_by_one(
    relay_with: StartRelay, over: Transport
) -> None:
    relay = await relay_with(max_streams_per_client=3, max_history_rows_per_minute=100)
    client = await over.reader(relay)
    await client.ask("subscribe", streams=["BTCUSDT@1m", "BTCUSDT@5m", "BTCUSDT@1h", "ETHUSDT@1m"])
    refused = await client.error()
    assert (refused["code"], refused["symbol"]) == ("too_many_subscriptions", "ETHUSDT")
    assert "3 streams, the maximum" in refused["message"]
    await client.update()
    greedy = await over.reader(relay)
    await greedy.ask("subscribe", streams=["BTCUSDT@1m", "BTCUSDT@5m"], bars=500)
    refused = await greedy.error()
    assert (refused["code"], refused["interval"]) == ("rate_limited", "5m")
    assert refused["retry_after"] > 0
    assert len((await greedy.seen("snapshot"))["candles"]) == 500


# -- how they leave --------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
async def test_client_that_vanishes_leaves_nothing_behind(relay: Running, sandbox: Sandbox, over: Transport) -> None:
    client = await over.subscriber(relay, "BTCUSDT@1m", "EUR/USD@1m", "ETHUSDT@1m", bars=100)
    found = (await relay.get("status")).body["clients"]
    is_sse = over.name == "sse"
    assert (found["event_streams"], found["subscribers"]) == (int(is_sse), 1)
    assert [one["over"] for one in found["newest"]] == [over.name]
    assert f"\nrelay_clients_sse {float(is_sse)}\n" in (await relay.get("/metrics")).text
    client.vanish()
    await eventually(lambda: not relay.hub.subscribers and not relay.hub.streams and not relay.clients.connections)
    await eventually(lambda: not sandbox.binance.subscribed)
    assert (relay.access.clients, relay.clients.event_streams) == (0, 0)


@pytest.mark.usefixtures("way")
async def test_end_of_the_relay_sends_all_clients_away_with_1001(relay: Running, over: Transport) -> None:
    clients = [await over.subscriber(relay, "BTCUSDT@1s", "EUR/USD@1m") for _ in range(5)]
    closing = [asyncio.create_task(client.closing()) for client in clients]
    await relay.app.shutdown()
    for task in closing:
        closed = await task
        assert (closed.code, closed.reason) == (1001, "server shutdown")
    assert_problem(await over.refusal(relay), 503, "internal", "shutting down")


async def test_client_whose_token_is_taken_away_is_closed_with_4003(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(tokens={"alice": "opensesame", "bob": "second"})
    alice, bob = [await over.subscriber(relay, "BTCUSDT@1s", token=one) for one in ("opensesame", "second")]
    relay.access.reconfigure(dataclasses.replace(relay.access.config, tokens=parse_tokens({"bob": "second"})))
    assert relay.clients.reconfigure() == 1
    closed = await alice.closing()
    assert (closed.code, closed.reason) == (4003, "token revoked")
    await bob.update(is_closed=True)


async def test_slow_consumer_is_closed_with_4000_and_resumes(relay: Running, over: Transport) -> None:
    client = await over.subscriber(relay, "BTCUSDT@1s")
    await client.update(is_closed=True)
    subscriber = next(iter(relay.hub.subscribers))
    subscriber.on_slow(subscriber, "told so by the test")
    closed = await client.closing()
    assert (closed.code, closed.reason) == (4000, "slow consumer")
    again = await over.back(relay, client, "BTCUSDT@1s")
    await again.update(is_closed=True)
    times = client.told("BTCUSDT") + again.told("BTCUSDT")
    assert times == list(range(times[0], times[0] + len(times)))
