"""The chart page's feed, run by Node without a page, against the stand-in of a relay."""

from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.client_readings import BTC, START, relay
from tests.support.javascript_client import SUPPORT, JsClient, node_of
from tests.support.served_files import lay_out
from tests.support.stand_in_relay import StandInRelay, problem_json

__all__ = ["relay"]


@pytest.fixture
async def feed(relay: StandInRelay, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JsClient]:
    file = lay_out(tmp_path).parent / "static" / "feed.js"
    options = orjson.dumps({"askAgainMs": [20, 100]}).decode()
    words = (str(SUPPORT / "page_feed.mjs"), str(file), relay.url, options)
    process = await create_subprocess_exec(node_of(request.config), *words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    yield JsClient(process)
    assert process.stdin is not None
    process.stdin.close()
    await process.communicate()


async def test_stream_that_a_relay_does_not_know_for_a_while_is_live_again(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    relay.refuse["BTCUSDT@1m"] = ("unknown_symbol", {})
    await relay.drop(1001)
    await feed.until("state", status="reconnecting")
    await relay.close_candle(BTC)
    relay.refuse.clear()
    await feed.until("state", status="connected")
    candle = await feed.until("candle")
    assert candle[-1]["times"] == [START + 60 * number for number in range(4)]


@pytest.mark.parametrize("code", ["unknown_symbol", "provider_unavailable"])
async def test_stream_that_was_never_taken_is_asked_for_again(relay: StandInRelay, feed: JsClient, code: str) -> None:
    relay.refuse["BTCUSDT@1m"] = (code, {})
    await feed.start("follow", "BTCUSDT@1m")
    for _ in range(3):
        assert (await feed.until("state"))[-1]["status"] == "error"
    relay.refuse.clear()
    await feed.until("state", status="connected")
    await feed.until("reset")


async def test_stream_that_makes_no_sense_is_not_asked_for_again(relay: StandInRelay, feed: JsClient) -> None:
    relay.refuse["BTCUSDT@9m"] = ("unknown_interval", {})
    await feed.start("follow", "BTCUSDT@9m")
    await feed.until("state", status="error")
    await feed.call("follow", "BTCUSDT@1m")
    await feed.until("reset", stream="BTCUSDT@1m")
    for close in range(20):
        await relay.tick(BTC, float(close))
        await feed.until("candle")
    asked = [name for request in relay.requests for name in request["streams"]]
    assert sorted(asked) == ["BTCUSDT@1m", "BTCUSDT@9m"]


async def test_page_that_the_relay_sent_away_can_still_be_used(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    await relay.drop(4001, "too many invalid messages")
    ended = (await feed.until("connection", state="ended"))[-1]
    assert "too many invalid messages" in ended["text"]
    await feed.call("follow", "ETHUSDT@1m")
    assert relay.attempts == 1


async def test_a_candle_that_was_scrolled_back_to_is_revised_live(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    older = [relay.markets[BTC][0]._replace(time=START - 60 * back, close=7.0) for back in (2, 1)]
    revised = {"is_closed": True, "revised": True, "backfilled": False}
    # Nobody has scrolled back to it yet: alone it would stand before a hole.
    await relay.say(relay.update(BTC, older[0]._replace(close=7.5), **revised))
    await relay.tick(BTC, 9.0)
    shown = [*relay.markets[BTC]]
    closes = [candle.close for candle in shown]
    assert (await feed.until("candle"))[-1]["closes"] == closes
    relay.markets[BTC][:0] = older
    await feed.call("loadOlder")
    assert (await feed.until("older"))[-1]["closes"] == [7.0, 7.0, *closes]
    await relay.wait_for_requests(2)
    # So the relay tells it what is revised of candles from before its first request, too.
    assert [request.get("since") for request in relay.requests] == [None, shown[-2].time]
    await relay.say(relay.update(BTC, older[0]._replace(close=7.25), **revised))
    await feed.until("candle", closes=[7.25, 7.0, *closes])


async def test_candles_that_are_not_valid_any_more_are_shown_as_such_until_history_has_them(
    relay: StandInRelay, feed: JsClient
) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    old = [candle.close for candle in relay.markets[BTC]]
    relay.problem = problem_json(503, "provider_unavailable", "the provider is away")
    split = START + 120
    names = {"type": "outdated", "symbol": "BTCUSDT", "interval": "1m", "reason": "a split"}
    await relay.say({**names, "from": 0, "before": split})
    shown = (await feed.until("older"))[-1]
    assert (shown["outdated"], shown["closes"]) == ([START, START + 60], old)
    relay.markets[BTC][:2] = [candle._replace(close=candle.close / 2) for candle in relay.markets[BTC][:2]]
    # The relay is asked again, and what it gives is all that was outdated, at once.
    relay.problem = None
    shown = (await feed.until("older"))[-1]
    assert (shown["outdated"], shown["closes"]) == ([], [old[0] / 2, old[1] / 2, *old[2:]])


async def test_a_new_snapshot_ends_what_was_outdated(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    relay.problem = problem_json(503, "provider_unavailable", "the provider is away")
    names = {"symbol": "BTCUSDT", "interval": "1m"}
    await relay.say({"type": "outdated", **names, "from": 0, "before": START + 240, "reason": "a split"})
    assert len((await feed.until("older"))[-1]["outdated"]) == 4
    halves = [candle._replace(close=candle.close / 2)._asdict() for candle in relay.markets[BTC]]
    past = {"candles": halves, "last_is_closed": False, "complete": True, "seq": relay.seq, "replaces": True}
    await relay.say({"type": "snapshot", **names, "provider": "demo", "revision": 2, **past})
    shown = (await feed.until("reset"))[-1]
    assert (shown["outdated"], shown["closes"]) == ([], [candle["close"] for candle in halves])


async def test_a_past_that_is_late_is_waited_for_and_leaves_the_view_as_it_is(
    relay: StandInRelay, feed: JsClient
) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    candles = [candle._asdict() for candle in relay.markets[BTC]]
    names = {"type": "snapshot", "symbol": "BTCUSDT", "interval": "1m", "provider": "demo", "revision": 2}
    said = {**names, "last_is_closed": False, "seq": relay.seq, "replaces": True}
    await relay.say({**said, "candles": candles[-1:], "complete": False, "pending": True})
    shown = (await feed.until("reset"))[-1]
    assert (len(shown["closes"]), shown["isComplete"]) == (1, False)
    # Nobody asks history for what comes by itself.
    await feed.call("loadOlder")
    await relay.say({**said, "candles": candles, "complete": True})
    shown = (await feed.until("older"))[-1]
    assert shown["closes"] == [candle["close"] for candle in candles]


async def test_time_goes_as_fast_as_that_of_a_replay(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    for ahead_s in (2_000_000_000, 2_000_003_600):
        stamp: dict[str, Any] = {"ts_event": (START + ahead_s) * 1000}
        await relay.say(relay.update(BTC, relay.markets[BTC][-1], is_closed=False) | stamp)
        now = (await feed.until("candle"))[-1]["now"]
        assert START + ahead_s <= now < START + ahead_s + 60


async def test_stream_of_a_list_costs_little_and_is_whole_as_soon_as_a_chart_shows_it(
    relay: StandInRelay, feed: JsClient
) -> None:
    times = [START + 60 * number for number in range(5)]
    await feed.start("follow", "BTCUSDT@1m", {"bars": 2, "throttleMs": 1000})
    await feed.until("reset", times=times[2:3])
    await feed.call("follow", "BTCUSDT@1m")
    await feed.until("reset", times=times[:3])
    await feed.call("leave", 1)
    await relay.wait_for_requests(4)
    asked = [
        {name: value for name, value in request.items() if name not in ("streams", "id")} for request in relay.requests
    ]
    assert asked == [
        {"action": "subscribe", "bars": 2, "throttle_ms": 1000},
        {"action": "unsubscribe"},
        {"action": "subscribe", "bars": 500},
        {"action": "subscribe", "since": times[2], "throttle_ms": 1000},
    ]
    # What is in no chart is kept for as long as was asked for.
    await relay.close_candle(BTC)
    await feed.until("candle", times=times[3:4])
    await feed.call("leave", 0)
    await relay.wait_for_requests(5)
    assert relay.requests[-1]["action"] == "unsubscribe"


async def test_list_and_chart_of_one_stream_ask_for_it_once(relay: StandInRelay, feed: JsClient) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    await feed.call("follow", "BTCUSDT@1m", {"bars": 2, "throttleMs": 1000})
    await feed.call("leave", 1)
    await relay.tick(BTC, 9.0)
    await feed.until("candle")
    assert [request["action"] for request in relay.requests] == ["subscribe"]


async def test_chart_gets_every_update_although_a_list_has_its_stream_by_another_name(
    relay: StandInRelay, feed: JsClient
) -> None:
    await feed.start("follow", "BTCUSDT@1m")
    await feed.until("reset")
    await feed.call("follow", "demo:BTCUSDT@1m", {"bars": 2, "throttleMs": 1000})
    await relay.wait_for_requests(3)
    # The relay takes the later request for one stream, whatever name that has.
    assert [request.get("throttle_ms") for request in relay.requests] == [None, 1000, None]
