import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from relay.client import (
    BadReply,
    Confirmed,
    Connected,
    Disconnected,
    Failure,
    Gap,
    Lost,
    Message,
    Refused,
    RelayClient,
    Snapshot,
    State,
    Unreachable,
    Update,
    parse_stream,
    parse_url,
)
from relay.model import StreamKey
from tests.stand_in_relay import StandInRelay, problem_json

BTC = StreamKey("BTCUSDT", "1m")
START = 1_764_000_000
QUICK = (0.01, 0.05)


@pytest.fixture
async def relay() -> AsyncIterator[StandInRelay]:
    relay = StandInRelay()
    relay.open_market("BTCUSDT@1m", START, closed=3)
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
async def client(relay: StandInRelay) -> AsyncIterator[RelayClient]:
    async with RelayClient(relay.url, backoff_s=QUICK) as client:
        yield client


async def until(client: RelayClient, is_last: Callable[[Message], bool]) -> list[Message]:
    """Collect messages up to the one looked for, that one included."""
    messages = []
    async with asyncio.timeout(30):
        async for message in client:
            messages.append(message)
            if is_last(message):
                break
    return messages


def is_a(*kinds: type) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, kinds)


def is_open_at(time: int) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, Update) and not message.is_closed and message.candle.time == time


def closed_times(messages: list[Message]) -> list[int]:
    times: list[int] = []
    for message in messages:
        if isinstance(message, Snapshot):
            closed = message.candles if message.last_is_closed else message.candles[:-1]
            times += [candle.time for candle in closed]
        elif isinstance(message, Update) and message.is_closed and not message.is_revised:
            times.append(message.candle.time)
    return times


# -- one connection -------------------------------------------------------------------------------------------------


async def test_subscription_starts_with_a_snapshot_and_goes_on_with_updates(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("btcusdt@1m", bars=2)
    messages = await until(client, is_a(Snapshot))
    await relay.tick(BTC, 107.25)
    messages += await until(client, is_a(Update))

    assert [type(message) for message in messages] == [Connected, Confirmed, Snapshot, Update]
    snapshot, update = messages[2], messages[3]
    assert isinstance(snapshot, Snapshot)
    assert [candle.time for candle in snapshot.candles] == [START + 120, START + 180]
    assert snapshot.is_complete
    assert not snapshot.last_is_closed
    assert isinstance(update, Update)
    assert (update.key, update.candle.close, update.is_closed) == (BTC, 107.25, False)
    assert update.ts_event_ms == (START + 180) * 1000


async def test_options_reach_the_relay(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=5, since=START, throttle_ms=250, closed_only=True)
    await until(client, is_a(Snapshot))
    asked = relay.requests[0] | {"id": 0}
    streams = {"action": "subscribe", "streams": ["BTCUSDT@1m"], "id": 0}
    assert asked == {**streams, "bars": 5, "since": START, "throttle_ms": 250, "closed_only": True}


async def test_subscribe_while_connected_is_sent_at_once(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.open_market("ETHUSDT@1m", START)
    await client.subscribe("ETHUSDT@1m")
    messages = await until(client, is_a(Update))
    assert [getattr(message, "key", None) for message in messages] == [("ETHUSDT", "1m")] * 2


async def test_unsubscribed_stream_sends_nothing_more(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("btcusdt@1m")
    await until(client, is_a(Update))
    await relay.tick(BTC, 1.0)
    await client.unsubscribe("BTCUSDT@1m")
    messages = await until(client, is_a(Confirmed))
    assert [type(message) for message in messages] == [Confirmed]
    assert not client.streams


async def test_stream_goes_by_the_name_it_was_asked_by_too(relay: StandInRelay, client: RelayClient) -> None:
    relay.open_market("BTCUSDT@1h", START - START % 3600)
    await client.subscribe("demo:BTCUSDT@1H")
    await until(client, is_a(Update))
    assert client.streams == (("BTCUSDT", "1h"),)
    await client.unsubscribe("demo:btcusdt@1H")
    assert not client.streams


async def test_two_spellings_of_one_stream_are_one(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("demo:BTCUSDT@1m", "BTCUSDT@1m")
    await until(client, is_a(Update))
    await until(client, is_a(Confirmed))
    assert client.streams == (BTC,)


async def test_many_streams_are_asked_for_in_frames_that_the_relay_takes(
    relay: StandInRelay, client: RelayClient
) -> None:
    names = [f"{'X' * 30}{number:04}@1m" for number in range(250)]
    for name in names:
        relay.open_market(name, START)
    await client.subscribe(*names, bars=0)
    confirmed = 0
    async with asyncio.timeout(30):
        async for message in client:
            confirmed += isinstance(message, Snapshot)
            if confirmed == 250:
                break
    assert max(relay.frame_sizes) <= 4096
    assert max(len(request["streams"]) for request in relay.requests) <= 100
    assert sorted(name for request in relay.requests for name in request["streams"]) == names


async def test_stream_states_and_gaps_are_passed_on(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    names = {"symbol": "BTCUSDT", "interval": "1m"}
    await relay.say({"type": "status", "status": "stale", "message": "silent", **names})
    await relay.say({"type": "gap", "from": 60, "to": 180, "reason": "lost", **names})
    state, gap = await until(client, is_a(Gap))
    assert isinstance(state, State)
    assert (state.key, state.status, state.message) == (BTC, "stale", "silent")
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end, gap.reason) == (60, 180, "lost")


async def test_revised_candle_is_delivered_although_it_is_older(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=3)
    await until(client, is_a(Snapshot))
    candle = relay.markets[BTC][0]._replace(close=99.5)
    await relay.say(relay.update(BTC, candle, is_closed=True, revised=True))
    update = (await until(client, is_a(Update)))[-1]
    assert isinstance(update, Update)
    assert (update.is_revised, update.candle.close) == (True, 99.5)


async def test_unknown_messages_are_ignored(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.say({"type": "weather", "symbol": "BTCUSDT"})
    await relay.say({"type": "status", "status": "busy"})
    await relay.tick(BTC, 1.0)
    assert len(await until(client, is_a(Update))) == 1


async def test_close_from_elsewhere_ends_the_iteration(client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    reading = asyncio.create_task(until(client, lambda message: False))
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(30):
        assert await reading == []


async def test_cancelled_iteration_loses_nothing(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=4)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(client)
    messages = await until(client, is_a(Snapshot))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(client)
    await relay.close_candle(BTC)
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START, START + 60, START + 120, START + 180]


# -- lost connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1001, 1009, 4000, None])
async def test_lost_connection_resumes_with_each_closed_candle_once_and_in_order(
    relay: StandInRelay, client: RelayClient, code: int | None
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=3)
    messages = await until(client, is_a(Snapshot))
    await relay.close_candle(BTC)
    messages += await until(client, is_open_at(START + 240))
    if code is None:
        relay.cut()
    else:
        await relay.drop(code, "told so")
    await relay.close_candle(BTC)
    await relay.close_candle(BTC)
    messages += await until(client, is_open_at(START + 360))

    assert closed_times(messages) == [START + 60, START + 120, START + 180, START + 240, START + 300]
    assert relay.requests[1]["since"] == START + 180
    assert "bars" not in relay.requests[1]
    assert sum(isinstance(message, Snapshot) for message in messages) == 1
    [lost] = [message for message in messages if isinstance(message, Lost)]
    if code is not None:
        assert lost.close_code == code
    missed = [message for message in messages if isinstance(message, Update) and message.is_backfilled]
    assert [message.candle.time for message in missed] == [START + 240, START + 300]
    assert missed[0].wire["backfilled"] is True


async def test_relay_that_is_away_is_waited_for(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    messages = await until(client, is_a(Snapshot))
    await relay.stop()
    messages += await until(client, lambda message: isinstance(message, Lost) and message.close_code is None)
    await relay.close_candle(BTC)
    await relay.start()
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 120, START + 180]


async def test_candles_sent_again_after_a_resume_are_not_delivered_again(
    relay: StandInRelay, client: RelayClient
) -> None:
    relay.replays = 3
    await client.subscribe("BTCUSDT@1m", bars=4)
    messages = await until(client, is_a(Snapshot))
    await relay.drop(1001)
    messages += await until(client, is_open_at(START + 180))
    await relay.say(relay.update(BTC, relay.markets[BTC][2], is_closed=True))
    await relay.say(relay.update(BTC, relay.markets[BTC][1], is_closed=False))
    await relay.close_candle(BTC)
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START, START + 60, START + 120, START + 180]


async def test_candle_seen_only_open_is_closed_after_the_resume(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.drop(1001)
    await relay.close_candle(BTC)
    messages = await until(client, is_open_at(START + 240))
    assert relay.requests[1]["since"] == START + 179
    assert closed_times(messages) == [START + 180]


@pytest.mark.parametrize("options", [{}, {"bars": 0}])
async def test_stream_of_which_nothing_came_yet_resumes_with_the_candle_that_was_open(
    relay: StandInRelay, client: RelayClient, options: dict[str, Any]
) -> None:
    relay.sends_hello_time = START + 200
    await client.subscribe("BTCUSDT@1m", closed_only=True, **options)
    await until(client, is_a(Snapshot) if options else is_a(Confirmed))
    await relay.close_candle(BTC)
    await relay.drop(1001)
    messages = await until(client, lambda message: isinstance(message, Update) and message.is_closed)
    assert closed_times(messages) == [START + 180]


async def test_what_the_relay_cannot_give_after_a_loss_is_told_as_a_gap(
    relay: StandInRelay, client: RelayClient
) -> None:
    await client.subscribe("BTCUSDT@1m", bars=2)
    await until(client, is_a(Snapshot))
    await relay.drop(1001)
    for _ in range(3):
        await relay.close_candle(BTC)
    del relay.markets[BTC][3:5]
    relay.is_complete = False
    gap, *rest = (await until(client, is_open_at(START + 360)))[3:]
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end) == (START + 121, START + 300)
    assert closed_times(rest) == [START + 300]


async def test_unreadable_message_costs_a_connection_and_no_candle(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=1)
    messages = await until(client, is_a(Snapshot))
    await relay.say('{"type":"price_update","symbol":"BTCUSDT","interval":"1m","candle":{"time":1}}')
    await relay.close_candle(BTC)
    messages += await until(client, is_a(Lost))
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 180]


@pytest.mark.parametrize(("code", "reason"), [(4001, "too many invalid messages"), (4003, "token revoked")])
async def test_codes_that_are_for_good_end_it(relay: StandInRelay, client: RelayClient, code: int, reason: str) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.drop(code, reason)
    with pytest.raises(Disconnected, match=rf"{reason}.*{code}") as caught:
        await until(client, lambda message: False)
    assert caught.value.close_code == code
    assert await until(client, lambda message: False) == []
    assert relay.connections == 1


async def test_4002_waits_the_longest_time(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.drop(4002, "rate limited")
    lost = (await until(client, is_a(Lost)))[-1]
    assert isinstance(lost, Lost)
    assert lost.retry_in_s == 0.05


async def test_waits_grow_up_to_the_longest_and_start_anew_once_data_flows(relay: StandInRelay) -> None:
    class Latest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    async with RelayClient(relay.url, backoff_s=(0.01, 0.06), jitter=Latest()) as client:
        await client.subscribe("BTCUSDT@1m")
        await until(client, is_a(Update))
        relay.handshake = 500
        await relay.drop(1001)
        losses: list[float] = []
        async with asyncio.timeout(30):
            while len(losses) < 4:
                message = await anext(client)
                assert isinstance(message, Lost)
                losses.append(message.retry_in_s)
        relay.handshake = None
        await until(client, is_a(Update))
        await relay.drop(1001)
        last = (await until(client, is_a(Lost)))[-1]
    assert losses == [0.02, 0.04, 0.06, 0.06]
    assert isinstance(last, Lost)
    assert last.retry_in_s == 0.02


def test_waits_are_spread_between_1_and_30_seconds() -> None:
    client = RelayClient(jitter=random.Random(1))
    first = [client._backoff(0) for _ in range(200)]
    later = [client._backoff(9) for _ in range(200)]
    assert 1 <= min(first) < 1.2
    assert 1.8 < max(first) <= 2
    assert 1 <= min(later) < 3
    assert 28 < max(later) <= 30


async def test_retry_after_of_a_full_relay_is_kept(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.handshake, relay.handshake_headers = 503, {"Retry-After": "0.3"}
    await relay.drop(1001)
    lost = (await until(client, lambda message: isinstance(message, Lost) and message.close_code is None))[-1]
    assert isinstance(lost, Lost)
    assert lost.retry_in_s == 0.3
    assert "full" in lost.reason


async def test_token_that_is_no_longer_valid_ends_it(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    relay.token = "changed"
    await relay.drop(1001)
    with pytest.raises(Refused, match="valid token"):
        await until(client, lambda message: False)


@pytest.mark.parametrize("seed", range(5))
async def test_random_faults_leave_every_closed_candle_once_and_in_order(seed: int) -> None:
    dice = random.Random(seed)
    relay = StandInRelay()
    keys = [relay.open_market("BTCUSDT@1m", START), relay.open_market("EUR/USD@1m", START)]
    await relay.start()

    async def torment() -> None:
        for _ in range(60):
            for key in keys:
                await relay.tick(key, dice.uniform(90, 110))
                if dice.random() < 0.6:
                    await relay.close_candle(key)
            relay.replays = dice.randrange(4)
            match dice.randrange(12):
                case 0:
                    await relay.drop(dice.choice([1001, 4000, 1011]))
                case 1:
                    relay.cut()
                case 2:
                    await relay.say("{")
                case 3:
                    await relay.stop()
                    await relay.start()
            await asyncio.sleep(dice.choice([0, 0, 0.005, 0.02]))
        # The test ends with these, or with what a resume brings instead.
        await asyncio.sleep(0.05)
        for key in keys:
            await relay.close_candle(key)

    got: dict[StreamKey, list[Message]] = {key: [] for key in keys}
    async with RelayClient(relay.url, waits_for_relay=True, backoff_s=(0.001, 0.02)) as client:
        await client.subscribe(*map(str, keys), bars=2)
        tormenting = asyncio.create_task(torment())
        async with asyncio.timeout(30):
            async for message in client:
                if isinstance(message, Update | Snapshot):
                    got[message.key].append(message)
                if tormenting.done() and all(
                    closed_times(got[key])[-1:] == [relay.markets[key][-2].time] for key in keys
                ):
                    break
        await tormenting
    await relay.stop()
    for key in keys:
        times = closed_times(got[key])
        assert times == list(range(times[0], relay.markets[key][-1].time, 60))


# -- refusals -------------------------------------------------------------------------------------------------------


async def test_refused_stream_is_told_and_the_others_go_on(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("NOPE@1m", "BTCUSDT@1m")
    messages = await until(client, is_a(Update))
    [failure] = [message for message in messages if isinstance(message, Failure)]
    assert (failure.code, failure.key, failure.is_retried) == ("unknown_symbol", ("NOPE", "1m"), False)
    assert client.streams == (BTC,)
    await relay.drop(1001)
    await until(client, is_a(Confirmed))
    assert relay.requests[1]["streams"] == ["BTCUSDT@1m"]


async def test_stream_refused_while_a_relay_starts_is_asked_for_again(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m", bars=1)
    messages = await until(client, is_a(Snapshot))
    relay.refuse["BTCUSDT@1m"] = ("provider_unavailable", {})
    await relay.drop(1001)
    failure = (await until(client, is_a(Failure)))[-1]
    assert isinstance(failure, Failure)
    assert failure.is_retried
    await relay.close_candle(BTC)
    relay.refuse.clear()
    messages += await until(client, is_open_at(START + 240))
    assert closed_times(messages) == [START + 180]


async def test_rate_limited_subscription_waits_as_long_as_the_relay_says(
    relay: StandInRelay, client: RelayClient
) -> None:
    relay.refuse["BTCUSDT@1m"] = ("rate_limited", {"retry_after": 0.2})
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Failure))
    relay.refuse.clear()
    before = asyncio.get_running_loop().time()
    await until(client, is_a(Update))
    assert asyncio.get_running_loop().time() - before > 0.15


async def test_error_about_no_stream_is_told(relay: StandInRelay, client: RelayClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    await until(client, is_a(Update))
    await relay.say({"type": "error", "code": "internal", "message": "sorry"})
    [failure] = await until(client, is_a(Failure))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.message, failure.key) == ("internal", "sorry", None)
    assert client.streams == (BTC,)


async def test_nobody_at_the_address_is_an_error_at_the_start(relay: StandInRelay, client: RelayClient) -> None:
    await relay.stop()
    with pytest.raises(Unreachable, match=r"^no relay reached at http://127\.0\.0\.1:\d+: connection refused$"):
        await anext(client)
    with pytest.raises(Unreachable):
        await client.symbols()


async def test_server_that_accepts_and_says_nothing_is_an_error_at_the_start() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RelayClient(f"http://127.0.0.1:{port}", timeout_s=0.2) as client:
        with pytest.raises(Unreachable, match="no answer in time"):
            await anext(client)
        with pytest.raises(Unreachable, match="no answer in time"):
            await client.status()
    for writer in held:
        writer.close()
    server.close()


async def test_client_told_to_wait_connects_once_the_relay_is_there(relay: StandInRelay) -> None:
    await relay.stop()
    async with RelayClient(relay.url, waits_for_relay=True, backoff_s=QUICK) as client:
        await client.subscribe("BTCUSDT@1m")
        assert isinstance(await anext(client), Lost)
        await relay.start()
        await until(client, is_a(Update))


@pytest.mark.parametrize(
    ("status", "words"), [(401, "token"), (403, "not allow"), (429, "too many"), (503, "full"), (404, "address")]
)
async def test_refused_connection_is_an_error_at_the_start(
    relay: StandInRelay, client: RelayClient, status: int, words: str
) -> None:
    relay.handshake, relay.handshake_headers = status, {"Retry-After": "7"}
    with pytest.raises(Refused, match=words) as caught:
        await anext(client)
    assert (caught.value.status, caught.value.retry_after) == (status, 7.0)


async def test_token_goes_in_the_header(relay: StandInRelay) -> None:
    relay.token = "s3cret"
    async with RelayClient(relay.url, "s3cret") as client:
        await client.subscribe("BTCUSDT@1m")
        await until(client, is_a(Update))
        assert await client.symbols() == ["BTCUSDT"]
    assert [headers["Authorization"] for headers in relay.headers] == ["Bearer s3cret"] * 2


# -- REST -----------------------------------------------------------------------------------------------------------


async def test_history(relay: StandInRelay, client: RelayClient) -> None:
    answer = await client.history("btcusdt", "1m", start_time=1, end_time=2, limit=2)
    assert relay.queries == [{"symbol": "btcusdt", "interval": "1m", "start_time": "1", "end_time": "2", "limit": "2"}]
    assert (answer.symbol, answer.interval, answer.last_is_closed) == ("BTCUSDT", "1m", False)
    assert [candle.time for candle in answer.candles] == [START + 120, START + 180]


async def test_instruments_and_status(relay: StandInRelay, client: RelayClient) -> None:
    [instrument] = await client.instruments("crypto")
    assert relay.queries == [{"asset_class": "crypto"}]
    assert (instrument.symbol, instrument.provider, instrument.intervals) == ("BTCUSDT", "demo", ("1m",))
    assert (await client.status())["uptime_s"] == 12.5


async def test_problem_becomes_a_typed_error(relay: StandInRelay, client: RelayClient) -> None:
    relay.problem = problem_json(503, "provider_unavailable", "the budget is used up", **{"Retry-After": "30"})
    with pytest.raises(Refused, match=r"^the budget is used up$") as caught:
        await client.history("BTCUSDT", "1m")
    fault = caught.value
    assert (fault.status, fault.code, fault.title, fault.retry_after) == (503, "provider_unavailable", "Refused", 30.0)


@pytest.mark.parametrize("answer", [[1], None, "text"])
async def test_answer_of_another_server_is_told(relay: StandInRelay, client: RelayClient, answer: Any) -> None:
    relay.status = answer
    with pytest.raises(BadReply, match="is the address right"):
        await client.status()


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("wss://relay.example/prices/", "https://relay.example/prices/"),
        ("https://user:pass@relay.example?token=x#y", "https://relay.example"),
    ],
)
def test_url_is_an_address_without_secrets(text: str, url: str) -> None:
    assert str(parse_url(text)).removesuffix("/") == url.removesuffix("/")


@pytest.mark.parametrize("text", ["", "ftp://relay.example", "http://", "http://host:99999"])
def test_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(text)


@pytest.mark.parametrize("text", ["BTCUSDT", "@1m", "BTCUSDT@", ""])
def test_stream_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SYMBOL@INTERVAL"):
        parse_stream(text)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ"])
def test_token_that_fits_no_header_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="one word"):
        RelayClient(token=token)
