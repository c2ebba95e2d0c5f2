"""An order book that is polled comes from the exchange's stream of it, and from the exchange where that is silent."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from relay.app import SUPERVISORS, RelayLimits
from relay.core.model import StreamKey
from relay.supervision.native_feed import SILENT_S, NativeFeed
from relay.web.facades.binance.pass_through import FRESH_S
from relay.web.facades.facade import FACADES, FacadeTiming
from tests.conftest import StartRelay
from tests.support.binance_oracle import BinanceOracle
from tests.support.conditions import eventually
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

BOOK = "/api/v3/depth?symbol=BTCUSDT&limit=5"
STREAM = "btcusdt@depth20@100ms"
KEY = StreamKey("BTCUSDT", "depth20@100ms")


def calls(sandbox: Sandbox) -> int:
    return sum(call.path == "/api/v3/depth" for call in sandbox.binance.requests)


def feed(relay: Running) -> NativeFeed:
    return relay.app[SUPERVISORS]["binance"].native


async def polled(relay: Running, path: str = BOOK) -> Any:
    """Ask twice, so that the stream begins; return the second answer."""
    await relay.get(path)
    return (await relay.get(path)).body


def test_a_silent_stream_is_asked_less_often_than_books_are() -> None:
    assert SILENT_S[0] > FRESH_S


async def test_a_book_that_is_polled_costs_one_call_and_comes_as_the_exchange_gives_it(
    sandbox: Sandbox, relay: Running
) -> None:
    second = await polled(relay)
    seen = [second["lastUpdateId"]]
    for limit in (1, 5, 7, 20) * 3:
        await asyncio.sleep(FRESH_S / 2)
        path = f"/api/v3/depth?symbol=BTCUSDT&limit={limit}"
        answer = await relay.get(path)
        truth: Any = BinanceOracle(sandbox).ask(path).body
        assert (answer.status, list(answer.body)) == (200, list(truth))
        assert [len(answer.body[side]) for side in ("bids", "asks")] == [limit, limit]
        assert {type(one) for level in answer.body["bids"] for one in level} == {str}
        assert truth["lastUpdateId"] - answer.body["lastUpdateId"] < 1000 * FRESH_S
        seen.append(answer.body["lastUpdateId"])
    assert seen == sorted(set(seen))
    assert calls(sandbox) == 1
    assert sandbox.binance.connections == 1
    counts = relay.app[FACADES].counts["binance"]
    assert (counts.weight, counts.weight_asked, counts.live_series) == (5, 14 * 5, 1)


@pytest.mark.parametrize("asked", ["limit=21", "limit=100", "limit=0", "limit=5&symbolStatus=TRADING", ""])
async def test_what_no_stream_has_is_passed_on(sandbox: Sandbox, relay: Running, asked: str) -> None:
    await polled(relay)
    before = calls(sandbox)
    assert (await relay.get(f"/api/v3/depth?symbol=BTCUSDT&{asked}".rstrip("&"))).status == 200
    assert calls(sandbox) == before + 1


async def test_while_a_stream_is_silent_the_exchange_is_asked_once_a_second(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.mute(STREAM)
    await asyncio.sleep(FRESH_S + 0.1)
    for _ in range(8):
        fresh = (await relay.get(BOOK)).body["lastUpdateId"]
        assert sandbox.binance.now_ms() - fresh < 1000 * FRESH_S
        await asyncio.sleep(FRESH_S / 4)
    assert 2 <= calls(sandbox) - 1 <= 3
    sandbox.binance.faults.unmute()
    await asyncio.sleep(FRESH_S)
    before = calls(sandbox)
    assert (await relay.get(BOOK)).status == 200
    assert calls(sandbox) == before


async def test_a_stream_that_is_late_is_not_believed(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.delay_frames(5)
    seen = []
    for _ in range(30):
        seen.append((await relay.get(BOOK)).body["lastUpdateId"])
        assert sandbox.binance.now_ms() - seen[-1] <= 1000 * FRESH_S
        await asyncio.sleep(FRESH_S / 4)
    assert seen == sorted(seen)


async def test_an_answer_is_never_older_than_the_one_before_it(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.mute(STREAM)
    await asyncio.sleep(FRESH_S + 0.1)
    seen = [(await relay.get(BOOK)).body["lastUpdateId"]]
    sandbox.binance.faults.unmute()
    await asyncio.sleep(FRESH_S / 4)
    seen.append((await relay.get(BOOK)).body["lastUpdateId"])
    sandbox.binance.faults.mute(STREAM)
    # What the stream said is gone, and what the exchange answered before that is less than a second old.
    feed(relay).renew()
    seen.append((await relay.get(BOOK)).body["lastUpdateId"])
    assert seen == sorted(seen)
    assert calls(sandbox) == 3


async def test_a_stream_that_is_silent_for_long_is_subscribed_anew(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.mute(STREAM, resubscribe_helps=True)
    for _ in range(int(SILENT_S[0] // 5) + 2):
        await asyncio.sleep(5)
        await relay.get(BOOK)
    before = calls(sandbox)
    await asyncio.sleep(1)
    await relay.get(BOOK)
    assert calls(sandbox) == before


async def test_a_lost_connection_comes_back_and_books_are_asked_for_meanwhile(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.refuse(503)
    sandbox.binance.faults.drop()
    await asyncio.sleep(FRESH_S + 0.1)
    assert (await relay.get(BOOK)).status == 200
    assert calls(sandbox) == 2
    sandbox.binance.faults.accept()
    await eventually(lambda: feed(relay).is_open and sandbox.binance.connections == 1)
    await asyncio.sleep(FRESH_S)
    assert (await relay.get(BOOK)).status == 200
    assert calls(sandbox) == 2


async def test_a_come_back_during_an_attempt_to_connect_counts_for_the_next(
    sandbox: Sandbox, relay: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    await polled(relay)
    sandbox.binance.faults.refuse(503)
    sandbox.binance.faults.drop()
    admit, log = sandbox.binance.admit, sandbox.binance.connect_log

    def refused() -> list[float]:
        return [one.time for one in log if one.status == 503]

    async def admit_after_word(request: web.Request) -> Any:
        if len(refused()) == 3:
            feed(relay).hurry()
        return await admit(request)

    monkeypatch.setattr(sandbox.binance, "admit", admit_after_word)
    while len(refused()) < 6:
        await asyncio.sleep(1)
        await relay.get(BOOK)
    pauses = [later - earlier for earlier, later in pairwise(refused())]
    # They grow, but after the fourth attempt there is none.
    assert (pauses[3] < 1.0, min(pauses[2], pauses[4]) > 1.0) == (True, True)


async def test_during_a_ban_books_that_are_followed_are_served(sandbox: Sandbox, relay: Running) -> None:
    await polled(relay)
    sandbox.binance.faults.answer_rest(418, retry_after=77)
    assert (await relay.get("/api/v3/depth?symbol=ETHUSDT&limit=5")).status == 429
    assert (await relay.get(BOOK)).status == 200


async def test_nobody_waits_for_streams_while_the_exchange_refuses_them(sandbox: Sandbox, relay: Running) -> None:
    sandbox.binance.faults.refuse(418)
    await polled(relay)
    await eventually(lambda: feed(relay).is_pausing)
    began = asyncio.get_running_loop().time()
    for symbol in ("ETHUSDT", "SOLUSDT", "XRPUSDT"):
        await polled(relay, f"/api/v3/depth?symbol={symbol}&limit=5")
    assert asyncio.get_running_loop().time() - began < FRESH_S


async def test_books_are_on_a_connection_of_their_own_and_take_no_place_of_candles(
    sandbox: Sandbox, relay: Running
) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    await polled(relay)
    assert sandbox.binance.connections == 2
    attempts = relay.app[SUPERVISORS]["binance"].attempts
    while attempts.has_spare(asyncio.get_running_loop().time()):
        attempts.reserve(asyncio.get_running_loop().time())
    opened = len(sandbox.binance.connect_log)
    feed(relay).renew()
    await asyncio.sleep(10)
    assert len(sandbox.binance.connect_log) == opened
    assert (await relay.get(BOOK)).status == 200


async def test_a_book_that_is_refused_is_asked_for_and_not_subscribed_again_at_once(
    sandbox: Sandbox, relay: Running
) -> None:
    sandbox.binance.faults.refuse_subscriptions(message="no such stream")
    for _ in range(4):
        assert (await relay.get(BOOK)).status == 200
        await asyncio.sleep(FRESH_S)
    assert calls(sandbox) == 4
    subscriptions = [one for one in sandbox.binance.control_messages if STREAM in one.text]
    assert len(subscriptions) == 1


async def test_a_book_that_nobody_asks_for_any_more_is_let_go(sandbox: Sandbox, relay_with: StartRelay) -> None:
    relay = await relay_with(limits=RelayLimits(facades=FacadeTiming(least_kept_s=2.0)))
    await polled(relay)
    await polled(relay, "/api/v3/depth?symbol=ETHUSDT&limit=20")
    for _ in range(5):
        await asyncio.sleep(1)
        await relay.get(BOOK)
    assert relay.app[FACADES].counts["binance"].live_series == 1
    assert sandbox.binance.connections == 1
    await eventually(lambda: sandbox.binance.connections == 0)
    assert relay.app[FACADES].counts["binance"].live_series == 0
    assert feed(relay).newest(KEY) is None
    before = calls(sandbox)
    await relay.get(BOOK)
    assert calls(sandbox) == before + 1


async def test_no_stream_is_opened_while_the_exchange_wants_no_connection(sandbox: Sandbox, relay: Running) -> None:
    waits = relay.app[SUPERVISORS]["binance"].provider.feed_waits
    waits.hear(600.0, "Binance asked another relay to wait")
    assert (await polled(relay))["bids"]
    assert feed(relay).is_pausing
    assert calls(sandbox) == 1
    assert [*sandbox.binance.connect_log] == []
    # Other settings end the wait.
    waits.forget()
    feed(relay).renew()
    await eventually(lambda: feed(relay).newest(KEY))
    assert not feed(relay).is_pausing
    assert [one.status for one in sandbox.binance.connect_log] == [101]
