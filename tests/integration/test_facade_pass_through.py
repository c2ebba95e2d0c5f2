"""What only the exchange can say is passed on: from a list, once for all, within the budget and in turns."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from relay.app import HISTORY, PROVIDERS, SUPERVISORS
from relay.core.errors import BadAnswer
from relay.plugins.outage import PAUSES_S
from relay.supervision.feed_slot import HURRY_S
from relay.web.facades.binance.pass_through import FRESH_S, PASSED_CALLS
from relay.web.facades.facade import FACADES
from tests.conftest import StartRelay
from tests.support.binance_oracle import BinanceOracle
from tests.support.conditions import eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

ASKED = [
    ("ticker/24hr?symbol=BTCUSDT", 2),
    ("ticker/24hr", 80),
    ('ticker/24hr?symbols=["BTCUSDT","ETHUSDT"]', 2),
    ("ticker/price?symbol=BTCUSDT", 2),
    ("ticker/price", 4),
    ("ticker/bookTicker", 4),
    ("ticker?symbol=BTCUSDT&windowSize=2h", 4),
    ("avgPrice?symbol=BTCUSDT", 2),
    ("depth?symbol=BTCUSDT&limit=5", 5),
    ("depth?symbol=BTCUSDT&limit=500", 25),
    ("depth?symbol=BTCUSDT&limit=1000", 50),
    ("depth?symbol=BTCUSDT&limit=5000", 250),
    ("trades?symbol=BTCUSDT&limit=3", 25),
    ("aggTrades?symbol=BTCUSDT&limit=3", 4),
]
REFUSED = [
    "depth", "depth?symbol=", "depth?symbol=btcusdt", "depth?symbol=NOPEUSDT", "depth?symbol=BTCUSDT&limit=abc",
    "depth?symbol=BTCUSDT&x=1", "ticker", "ticker/price?symbols=BTCUSDT",
    'ticker/24hr?symbol=BTCUSDT&symbols=["ETHUSDT"]', 'ticker/24hr?symbols=["BTCUSDT","NOPEUSDT"]', "avgPrice",
    "trades?limit=5", "aggTrades?symbol=BTCUSDT&fromId=-1",
]  # fmt: skip


def calls(sandbox: Sandbox, name: str) -> int:
    return sum(call.path == f"/api/v3/{name}" for call in sandbox.binance.requests)


def without_times(body: Any) -> Any:
    """Return an answer without what goes on while it is on its way."""
    if isinstance(body, list):
        return [*map(without_times, body)]
    if not isinstance(body, dict):
        return body
    return {
        name: value
        for name, value in body.items()
        if name in ("symbol", "openTime", "openPrice", "mins", "isBestMatch")
    }


@pytest.mark.parametrize(("asked", "weight"), ASKED)
async def test_an_answer_is_the_exchanges_own_and_weighs_what_it_says(
    sandbox: Sandbox, relay: Running, asked: str, weight: int
) -> None:
    await relay.get("/api/v3/exchangeInfo")
    before = sandbox.binance.rest.weight_used
    answer = await relay.get(f"/api/v3/{asked}")
    truth: Any = BinanceOracle(sandbox).ask(f"/api/v3/{asked}").body
    assert answer.status == 200
    assert without_times(answer.body) == without_times(truth)
    assert type(answer.body) is type(truth)
    assert sandbox.binance.rest.weight_used - before == weight
    (budget,) = relay.app[PROVIDERS]["binance"].budgets()
    assert budget.used == sandbox.binance.rest.weight_used == int(answer.headers["X-MBX-USED-WEIGHT-1M"])


@pytest.mark.parametrize("asked", REFUSED)
async def test_what_the_exchange_would_refuse_costs_nothing(sandbox: Sandbox, relay: Running, asked: str) -> None:
    answer, truth = await relay.get(f"/api/v3/{asked}"), BinanceOracle(sandbox).ask(f"/api/v3/{asked}")
    assert (answer.status, answer.body) == (truth.status, truth.body)
    assert answer.status == 400
    assert calls(sandbox, asked.partition("?")[0]) == 0


async def test_all_who_ask_the_same_within_a_second_are_one_call(sandbox: Sandbox, relay: Running) -> None:
    answers = await asyncio.gather(*(relay.get("/api/v3/ticker/24hr") for _ in range(20)))
    answers += [await relay.get("/t/any/api/v3/ticker/24hr") for _ in range(5)]
    assert len({answer.text for answer in answers}) == 1
    assert calls(sandbox, "ticker/24hr") == 1
    counts = relay.app[FACADES].counts["binance"]
    assert (counts.calls, counts.weight, counts.weight_asked) == (1, 80, 25 * 80)
    await asyncio.sleep(FRESH_S)
    await relay.get("/api/v3/ticker/24hr")
    assert calls(sandbox, "ticker/24hr") == 2


async def test_a_client_that_leaves_takes_the_answer_from_nobody(sandbox: Sandbox, relay: Running) -> None:
    await relay.get("/api/v3/exchangeInfo")
    sandbox.binance.faults.delay_rest(0.3)
    first = asyncio.create_task(relay.get("/api/v3/depth?symbol=BTCUSDT"))
    await eventually(lambda: relay.app[HISTORY].calls.turn(relay.app[PROVIDERS]["binance"], None) and not first.done())
    second = asyncio.create_task(relay.get("/api/v3/depth?symbol=BTCUSDT"))
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second).status == 200
    assert calls(sandbox, "depth") == 1


async def test_a_failure_is_an_error_and_is_not_kept(sandbox: Sandbox, relay: Running) -> None:
    await relay.get("/api/v3/exchangeInfo")
    sandbox.binance.faults.answer_rest(502, times=1)
    failed = await relay.get("/api/v3/depth?symbol=BTCUSDT")
    assert (failed.status, failed.body["code"]) == (503, -1001)
    assert (await relay.get("/api/v3/depth?symbol=BTCUSDT")).status == 200
    sandbox.binance.faults.answer_rest(429, '{"code":-1003,"msg":"Too much request weight used"}', retry_after=33)
    banned = await relay.get("/api/v3/depth?symbol=ETHUSDT")
    assert (banned.status, banned.body["code"]) == (429, -1003)
    assert 25 < int(banned.headers["Retry-After"]) <= 33


async def test_after_a_ban_calls_are_passed_on_again(sandbox: Sandbox, relay: Running) -> None:
    await relay.get("/api/v3/exchangeInfo")
    sandbox.binance.faults.answer_rest(418, retry_after=3, times=1)
    assert (await relay.get("/api/v3/depth?symbol=BTCUSDT")).status == 429
    await asyncio.sleep(3.1)
    assert (await relay.get("/api/v3/depth?symbol=BTCUSDT")).status == 200


async def test_a_call_that_failed_does_not_make_others_seem_expensive(sandbox: Sandbox, relay: Running) -> None:
    sandbox.binance.faults.answer_rest(502, times=1, path="/api/v3/ticker/24hr")
    assert (await relay.get("/api/v3/ticker/24hr")).status == 503
    # It weighed 80, of which a client may spend 4,500.
    for levels in range(21, 21 + 60):
        assert (await relay.get(f"/api/v3/depth?symbol=BTCUSDT&limit={levels}")).status == 200


async def test_an_exchange_that_is_away_is_asked_now_and_then_and_others_share_the_refusal(
    sandbox: Sandbox, relay: Running
) -> None:
    await relay.get("/api/v3/exchangeInfo")
    sandbox.binance.faults.answer_rest(503)
    loop, statuses = asyncio.get_running_loop(), Counter[tuple[int, int, str]]()
    began = loop.time()
    while loop.time() - began < 30:
        for asked in ("ticker/price?symbol=BTCUSDT", "ticker/price?symbol=ETHUSDT", "depth?symbol=BTCUSDT"):
            refused = await relay.get(f"/api/v3/{asked}")
            statuses[refused.status, refused.body["code"], refused.headers["Retry-After"]] += 1
        await asyncio.sleep(0.5)
    assert statuses == {(503, -1001, "5"): statuses.total()}
    # Two that make an outage, and one after each pause of 1, 2, 4, 5, 5 … seconds.
    assert 2 + 6 <= calls(sandbox, "ticker/price") + calls(sandbox, "depth") <= 3 + 8
    sandbox.binance.faults.clear()
    await asyncio.sleep(PAUSES_S[-1])
    assert (await relay.get("/api/v3/ticker/price?symbol=BTCUSDT")).status == 200
    assert (await relay.get("/api/v3/ticker/price?symbol=ETHUSDT")).status == 200


async def test_one_call_that_fails_does_not_keep_others_from_the_exchange(sandbox: Sandbox, relay: Running) -> None:
    sandbox.binance.faults.answer_rest(503, path="/api/v3/ticker/24hr")
    statuses: Counter[tuple[str, int]] = Counter()
    for number in range(40):
        statuses["ticker/24hr", (await relay.get("/api/v3/ticker/24hr?symbol=BTCUSDT")).status] += 1
        if number % 4 == 3:
            statuses["depth", (await relay.get("/api/v3/depth?symbol=BTCUSDT")).status] += 1
        await asyncio.sleep(0.3)
    assert statuses == {("ticker/24hr", 503): 40, ("depth", 200): 10}
    assert calls(sandbox, "ticker/24hr") <= 2 + 5


async def test_streams_are_back_soon_after_the_exchange_answers_again(sandbox: Sandbox, relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update()
    slot = next(iter(relay.app[SUPERVISORS]["binance"]._slots))
    sandbox.binance.faults.answer_rest(503)
    sandbox.binance.faults.refuse(503)
    sandbox.binance.faults.drop()
    while slot._loss is None or slot._loss.opens_at - asyncio.get_running_loop().time() < 12:  # noqa: ASYNC110  by time
        await asyncio.sleep(0.5)
    for _ in range(2):
        await relay.get("/api/v3/ticker/price?symbol=BTCUSDT")
    sandbox.binance.faults.clear()
    await asyncio.sleep(PAUSES_S[-1])
    planned_at = slot._loss.opens_at
    assert (sandbox.binance.connections, planned_at > asyncio.get_running_loop().time() + 2 * HURRY_S) == (0, True)
    assert (await relay.get("/api/v3/ticker/price?symbol=BTCUSDT")).status == 200
    # What is sent may arrive late on a busy machine, and time goes on until it does.
    await eventually(lambda: sandbox.binance.connections == 1)
    assert asyncio.get_running_loop().time() < planned_at


async def test_one_client_cannot_use_up_the_budget_and_live_streams_come_first(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    relay = await relay_with(tokens=("alice-0123456789abcdef", "bob-0123456789abcdef0"))
    statuses: Counter[int] = Counter()
    for number in range(100):
        path = f"/t/alice-0123456789abcdef/api/v3/depth?symbol=BTCUSDT&limit={1001 + number}"
        statuses[(await relay.get(path)).status] += 1
    assert statuses[429] > 0
    # Of 6,000 a client may use three quarters, whatever a call weighs.
    assert sandbox.binance.rest.weight_used <= 0.75 * 6000 + 250
    bob = "/t/bob-0123456789abcdef0/api/v3/"
    assert (await relay.get(f"{bob}ticker/price?symbol=BTCUSDT")).status == 200
    while (await relay.get(f"{bob}depth?symbol=ETHUSDT&limit={5000 - sum(statuses.values())}")).status == 200:
        statuses[200] += 1
    assert sandbox.binance.rest.weight_used <= 0.8 * 6000 + 250
    client = await relay.connect(headers={"Authorization": "Bearer bob-0123456789abcdef0"})
    await client.subscribe("SOLUSDT@1m")
    await client.update()


async def test_a_client_without_a_share_takes_the_answer_from_nobody_else(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    relay = await relay_with(tokens=("alice-0123456789abcdef", "bob-0123456789abcdef0"))
    alice, bob = (f"/t/{name}/api/v3/" for name in ("alice-0123456789abcdef", "bob-0123456789abcdef0"))
    number = 1001
    while (await relay.get(f"{alice}depth?symbol=BTCUSDT&limit={number}")).status == 200:
        number += 1
    for path in ("depth?symbol=ETHUSDT", "klines?symbol=ETHUSDT&interval=1h&limit=7"):
        # While others wait for their turn, all of these wait for the same.
        sandbox.binance.faults.delay_rest(0.2)
        others = [
            asyncio.create_task(relay.get(f"{bob}avgPrice?symbol={one}USDT")) for one in ("BTC", "ETH", "BNB", "SOL")
        ]
        await asyncio.sleep(0.05)
        refused, given = await asyncio.gather(relay.get(alice + path), relay.get(bob + path))
        assert (refused.status, given.status) in ((429, 200), (200, 200))
        assert {one.status for one in await asyncio.gather(*others)} == {200}


@pytest.mark.parametrize(
    "asked",
    [
        "ticker?symbol=BTCUSDT&windowSize=1%20OR%201=1",
        "ticker/24hr?symbol=BTCUSDT&type=SELECT%20*%20FROM%20x",
        "ticker/price?symbolStatus=%3Cscript%3E",
        "depth?symbol=BTCUSDT&symbolStatus=UNION%20SELECT",
        "exchangeInfo?permissions=SELECT%20*%20FROM%20x",
        "exchangeInfo?showPermissionSets=true&symbols=%5B%22DROP%20TABLE%22%5D",
        "exchangeInfo?showPermissionSets=true&symbol=NOPEUSDT",
    ],
)
async def test_no_text_that_a_client_made_up_gets_through(sandbox: Sandbox, relay: Running, asked: str) -> None:
    await relay.get("/api/v3/exchangeInfo")
    before = len(sandbox.binance.requests)
    assert (await relay.get(f"/api/v3/{asked}")).status == 400
    assert len(sandbox.binance.requests) == before


async def test_the_provider_passes_nothing_on_that_is_not_on_its_list(relay: Running) -> None:
    provider = relay.app[PROVIDERS]["binance"]
    for path in ("/api/v3/account", "/sapi/v1/system/status", "/api/v3/depth/../account", "/api/v3/ping"):
        with pytest.raises(BadAnswer, match="is not passed on"):
            await provider.native(path, {})
    assert PASSED_CALLS.keys() == {"binance", "binance_usdm"}


async def test_of_a_market_that_the_relay_does_not_have_nothing_is_known(relay: Running) -> None:
    answer = await relay.get("/fapi/v1/ticker/24hr?symbol=BTCUSDT")
    assert (answer.status, answer.body["code"]) == (400, -1121)
