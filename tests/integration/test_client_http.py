"""REST routes and tokens of the client, on real sockets."""

from typing import Any

import aiohttp
import pytest

from relay.client import (
    BadArgument,
    BadReply,
    ClientClosed,
    Refused,
    RelayClient,
    Update,
)
from tests.support.client_readings import START, client, is_a, relay, until
from tests.support.stand_in_relay import StandInRelay, problem_json

__all__ = ["client", "relay"]


async def test_token_goes_in_the_header(relay: StandInRelay) -> None:
    relay.token = "s3cret"
    async with RelayClient(relay.url, "s3cret") as client:
        await client.subscribe("BTCUSDT@1m")
        await until(client, is_a(Update))
        assert await client.symbols() == ["BTCUSDT"]
    assert [headers["Authorization"] for headers in relay.headers] == ["Bearer s3cret"] * 2


async def test_history(relay: StandInRelay, client: RelayClient) -> None:
    answer = await client.history("btcusdt", "1m", start_time=1, end_time=START + 180, limit=2)
    span = {"start_time": "1", "end_time": str(START + 180)}
    assert relay.queries == [{"symbol": "btcusdt", "interval": "1m", **span, "limit": "2"}]
    assert (answer.symbol, answer.interval, answer.last_is_closed) == ("BTCUSDT", "1m", False)
    assert [candle.time for candle in answer.candles] == [START + 120, START + 180]


async def test_instruments_and_status(relay: StandInRelay, client: RelayClient) -> None:
    [instrument] = await client.instruments("crypto")
    assert relay.queries == [{"asset_class": "crypto"}]
    assert (instrument.symbol, instrument.provider, instrument.intervals) == ("BTCUSDT", "demo", ("1m",))
    assert (await client.status())["uptime_s"] == 12.5


async def test_instruments_are_searched_by_the_relay(relay: StandInRelay, client: RelayClient) -> None:
    assert len(await client.instruments(provider="demo", search="s&p 500", limit=7)) == 1
    assert relay.queries == [{"provider": "demo", "q": "s&p 500", "limit": "7"}]
    for wrong in ({"limit": 5001}, {"limit": 0}, {"search": ""}, {"provider": 5}):
        with pytest.raises(BadArgument, match=next(iter(wrong))):
            await client.instruments(**wrong)


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


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ключ"])
def test_token_that_fits_no_header_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="one word"):
        RelayClient(token=token)


@pytest.mark.parametrize("was_used", [True, False])
async def test_client_that_is_closed_says_so(relay: StandInRelay, was_used: bool) -> None:
    client = RelayClient(relay.url)
    if was_used:
        await client.symbols()
    await client.close()
    with pytest.raises(ClientClosed, match="is closed"):
        await client.symbols()
    await client.close()


async def test_session_given_is_used_and_not_closed(relay: StandInRelay) -> None:
    async with aiohttp.ClientSession(headers={"X-Bot": "7"}) as session:
        async with RelayClient(relay.url, session=session) as client:
            assert await client.symbols() == ["BTCUSDT"]
        assert not session.closed
    assert relay.headers[0]["X-Bot"] == "7"
