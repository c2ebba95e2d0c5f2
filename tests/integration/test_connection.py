"""One client's session: requests are answered in order, errors name their cause, abuse ends it and nothing else."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.conftest import StartRelay
from tests.support.running_relay import Message, WsClient

pytestmark = pytest.mark.usefixtures("way")

HERE = str(Path(__file__).parents[2])
SECRETS = ("sandbox-key", "Traceback", HERE, "/home", "/tmp", "site-packages", ".py", "http://127", "ws://127")


def assert_harmless(message: Message) -> None:
    """No message carries a key, a token, a path or a traceback."""
    text = str(message)
    assert not any(secret in text for secret in SECRETS), text


async def test_id_comes_back_as_it_was(client: WsClient) -> None:
    for request_id in (1, 0, -5, "seven", "", 2**53):
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


async def test_many_streams_are_answered_each_on_its_own(client: WsClient) -> None:
    names = ["BTCUSDT@1s", "NOPE@1m", "EUR/USD@1h", "EUR/USD@1s", "ETHUSDT@1x", "ETHUSDT"]
    await client.ask("subscribe", streams=names, id=9)
    answers = [await client.answer(9) for _ in names]
    # In no order: some wait for what lists say.
    assert {(answer.get("symbol"), answer.get("interval"), answer.get("code", "")) for answer in answers} == {
        ("BTCUSDT", "1s", ""),
        ("NOPE", "1m", "unknown_symbol"),
        ("EUR/USD", "1h", ""),
        ("EUR/USD", "1s", "unsupported_interval"),
        ("ETHUSDT", "1x", "unknown_interval"),
        (None, None, "invalid_request"),
    }
    unknown = next(answer for answer in answers if answer.get("symbol") == "NOPE")
    assert set(unknown) == {"type", "code", "message", "symbol", "interval", "id"}
    await client.ask("list", id=10)
    assert (await client.answer(10))["streams"] == ["BTCUSDT@1s", "EUR/USD@1h"]


async def test_clients_own_ping_is_answered(client: WsClient) -> None:
    await client.socket.ping(b"are you there")
    await client.ask("ping")
    await client.next()
    # aiohttp answers pongs itself; that the connection lives on is what shows.
    await client.ask("ping")
    assert (await client.next())["type"] == "pong"


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
        '{"action":"subscribe","streams":["BTCUSDT@1m"],"symbol":"BTCUSDT"}',
        "invalid_request",
        ("streams", "symbol", "both"),
    ),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":"9"}', "invalid_request", ("'9'", "whole")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","bars":true}', "invalid_request", ("true", "whole")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","since":1.5}', "invalid_request", ("1.5", "whole")),
    ('{"action":"subscribe","symbol":"BTCUSDT","interval":"1m","closed_only":1}', "invalid_request", ("1", "true")),
    ('{"action":"unsubscribe","symbol":"BTCUSDT","interval":"1m"}', "not_subscribed", ("BTCUSDT@1m", "list")),
    ('{"action":"unsubscribe","symbol":"BTCUSDT","interval":"9m"}', "unknown_interval", ("'9m'", "1m")),
]


async def test_bad_frames_get_their_errors_and_harm_nobody(client: WsClient, bystander: WsClient) -> None:
    at = len(bystander.received)
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
        await bystander.update(is_closed=True)
    # A state as well where the machine paused, and a candle came so late that history was asked for it.
    assert {message["type"] for message in bystander.received[at:]} <= {"price_update", "status"}
    seqs = [message["seq"] for message in bystander.updates]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_binary_frame_is_an_invalid_request(client: WsClient) -> None:
    await client.socket.send_bytes(b'{"action":"ping"}')
    error = await client.next()
    assert (error["code"], "text" in error["message"]) == ("invalid_request", True)
    await client.ask("ping")
    assert (await client.next())["type"] == "pong"


async def test_requests_above_the_rate_are_refused_then_the_client_is_closed(
    client: WsClient, bystander: WsClient
) -> None:
    async def flood() -> None:
        for number in range(3000):
            await client.send({"action": "ping", "id": number})

    task = asyncio.create_task(flood())
    closed = await client.closing()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (closed.code, closed.reason) == (4002, "rate limited")
    refused = [message for message in client.received if message["type"] == "error"]
    assert {message["code"] for message in refused} == {"rate_limited"}
    assert refused[0]["retry_after"] >= 0
    before = client.received[: client.received.index(refused[0])]
    assert refused[0]["id"] == sum(message["type"] == "pong" for message in before)


INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h")


async def test_request_counts_for_the_streams_that_it_names(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second=1.0)
    client = await relay.connect()
    names = [f"{symbol}@{interval}" for symbol in ("BTCUSDT", "ETHUSDT") for interval in INTERVALS]
    await client.subscribe(*names, id=1)
    await client.ask("ping", id=2)
    assert (await client.answer(2))["type"] == "pong"
    await client.subscribe(*names, id=3)
    await client.ask("ping", id=4)
    assert (await client.answer(4))["code"] == "rate_limited"


async def test_too_many_invalid_messages_close_with_4001(client: WsClient, bystander: WsClient) -> None:
    began = time.monotonic()
    for _ in range(150):
        await client.send_text("nonsense")
    closed = await client.closing()
    assert (closed.code, closed.reason) == (4001, "too many invalid messages")
    # A hundred at once, and one more a second.
    assert 100 <= len(client.received) <= 105 + time.monotonic() - began


async def test_unknown_symbols_alone_do_not_close_the_connection(client: WsClient) -> None:
    for number in range(3):
        await client.ask("subscribe", streams=[f"NO{number}X{n}@1m" for n in range(100)], id=number)
        for _ in range(100):
            assert (await client.answer(number))["code"] == "unknown_symbol"
    await client.send_text("nonsense")
    await client.ask("ping", id="alive")
    assert (await client.answer("alive"))["type"] == "pong"
