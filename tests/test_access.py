"""Who may use the relay: tokens, origins, numbers of clients; over a real socket."""

from collections.abc import Awaitable
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.web.access import TokenBucket
from tests.conftest import StartRelay
from tests.running import Running
from tests.test_http import assert_problem

PAGE = "https://charts.example.org"


async def refusal(connecting: Awaitable[Any]) -> aiohttp.WSServerHandshakeError:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connecting
    return refused.value


async def handshake(running: Running, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Ask for the upgrade by hand; return status, headers and body of the refusal."""
    ask = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers,
    }  # fmt: skip
    answer = await running.get("ws", headers=ask)
    return answer.status, dict(answer.headers), orjson.loads(answer.text)


# -- tokens ----------------------------------------------------------------------------------------


async def test_without_a_valid_token_nothing_but_health_is_served(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame", "second"))
    for path in ("history?symbol=BTCUSDT&interval=1m", "symbols", "status", "/nothing"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic opensesame"},
            {"Authorization": "opensesame"},
            {"Authorization": "Bearer \udcff\udcfe"},
            {"Authorization": "Bearer höhle"},
        ):
            answer = await relay.get(path, headers=headers)
            assert_problem(answer, 401, "unauthorized", "Authorization: Bearer")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "opensesame" not in answer.text
    for path in ("/healthz", "/readyz"):
        assert (await relay.get(path)).status == 200


@pytest.mark.parametrize("header", ["Bearer opensesame", "bearer second", "BEARER  opensesame "])
async def test_each_token_opens_everything(relay_with: StartRelay, header: str) -> None:
    relay = await relay_with(tokens=("opensesame", " second "))
    assert (await relay.get("symbols", headers={"Authorization": header})).status == 200
    client = await relay.connect(headers={"Authorization": header})
    await client.subscribe("BTCUSDT@1m")


async def test_query_token_counts_on_the_websocket_only(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame",))
    await relay.connect(query="?token=opensesame")
    assert (await refusal(relay.connect(query="?token=wrong"))).status == 401
    assert (await refusal(relay.connect())).status == 401
    assert_problem(await relay.get("symbols?token=opensesame"), 401, "unauthorized")


async def test_refused_handshake_is_a_problem(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=("opensesame",))
    status, headers, body = await handshake(relay)
    assert (status, body["code"]) == (401, "unauthorized")
    assert headers["Content-Type"].startswith("application/problem+json")


# -- origins ---------------------------------------------------------------------------------------


async def test_origin_that_is_not_allowed_is_refused(relay: Running) -> None:
    for origin in (PAGE, "null", "http://127.0.0.1:1", "https://" + relay.url.removeprefix("http://"), "", "\udcff"):
        assert (await refusal(relay.connect(headers={"Origin": origin}))).status == 403
        assert_problem(await relay.get("symbols", headers={"Origin": origin}), 403, "forbidden", "allowed_origins")
    status, headers, body = await handshake(relay, Origin=PAGE)
    assert (status, body["code"]) == (403, "forbidden")
    assert "Access-Control-Allow-Origin" not in headers


async def test_own_origin_allowed_origins_and_no_origin_pass(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    for headers in ({}, {"Origin": relay.url}, {"Origin": PAGE}, {"Origin": PAGE.upper()}):
        await relay.connect(headers=headers)
        assert (await relay.get("symbols", headers=headers)).status == 200


async def test_cors_headers_go_to_allowed_origins_only(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,))
    good = await relay.get("symbols", headers={"Origin": PAGE})
    assert good.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Retry-After" in good.headers["Access-Control-Expose-Headers"]
    assert good.headers["Vary"] == "Origin"
    # A page has to be able to read why it was refused.
    bad = await relay.get("history?symbol=NOPE&interval=1m", headers={"Origin": PAGE})
    assert (bad.status, bad.headers["Access-Control-Allow-Origin"]) == (404, PAGE)
    plain = await relay.get("symbols")
    assert "Access-Control-Allow-Origin" not in plain.headers
    assert plain.headers["Vary"] == "Origin"


async def test_preflight_is_answered_without_a_token(relay_with: StartRelay) -> None:
    relay = await relay_with(allowed_origins=(PAGE,), tokens=("opensesame",))
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answer = await relay.get("symbols", method="OPTIONS", headers=asks)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
    strange = await relay.get("symbols", method="OPTIONS", headers={**asks, "Origin": "https://evil.example"})
    assert_problem(strange, 403, "forbidden")


# -- numbers ---------------------------------------------------------------------------------------


async def test_full_relay_answers_503_with_retry_after(relay_with: StartRelay) -> None:
    relay = await relay_with(max_clients=2)
    clients = [await relay.connect() for _ in range(2)]
    refused = await refusal(relay.connect())
    assert refused.status == 503
    assert refused.headers is not None
    assert int(refused.headers["Retry-After"]) >= 1
    status, _, body = await handshake(relay)
    assert (status, body["code"]) == (503, "internal")
    assert (await relay.get("symbols")).status == 200
    await clients[0].close()
    await relay.connect()


async def test_too_many_connections_of_one_address_answer_429(relay_with: StartRelay) -> None:
    relay = await relay_with(max_clients_per_address=3)
    clients = [await relay.connect() for _ in range(3)]
    refused = await refusal(relay.connect())
    assert refused.status == 429
    assert refused.headers is not None
    assert int(refused.headers["Retry-After"]) >= 1
    status, _, body = await handshake(relay)
    assert (status, body["code"]) == (429, "rate_limited")
    assert "3" in body["detail"]
    await clients[0].close()
    await relay.connect()


async def test_refused_handshakes_are_not_counted(relay_with: StartRelay) -> None:
    relay = await relay_with(max_clients=1, tokens=("opensesame",))
    for _ in range(5):
        await refusal(relay.connect())
        await handshake(relay, Authorization="Bearer opensesame", **{"Sec-WebSocket-Version": "6"})
    assert relay.access.clients == 0
    await relay.connect(query="?token=opensesame")


# -- the bucket ------------------------------------------------------------------------------------


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_bucket_never_gives_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(rate, burst, lambda: now)
    taken = 0
    for pause in pauses:
        now += pause
        taken += bucket.take()
        assert taken <= burst + rate * now + 1e-6
        assert 0 <= bucket.wait_s <= 1 / rate
