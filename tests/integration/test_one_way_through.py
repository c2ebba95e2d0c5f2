"""The way of a request through the relay is short, and goes on: nothing is asked twice for the same thing."""

import asyncio

import pytest

from relay.app import DIRECTORY, HISTORY, PROVIDERS
from tests.support.call_trace import CallTrace, is_value
from tests.support.running_relay import Running

# What the thread of the database does is no step of the way.
pytestmark = pytest.mark.real_time

WAY = [
    "web/ws/connection",
    "web/ws/subscriptions",
    "streams/hub",
    "history/joining",
    "history/past_fetch",
    "history/service",
    "storage/store",
    "streams/fanout",
]
"""The modules that hold a step of a subscription with a past which memory has."""

READING = ["storage/loader", "storage/database"]
"""The modules that hold one more where the past is read from the file."""

BEFORE_AND_AFTER = {
    # How much to ask for, what the answer is to say of the present, and whether it is still so where it is spliced.
    "history/live_edge:live_of": 3,
    # Before and after an answer is made: whether all of it is of one instrument.
    "history/identity_checks:IdentityChecks.is_settled": 2,
    # For what is known of the stream, and for its candles: where it has to be read, that is awaited between the two.
    "storage/stream_index:StreamIndexes.get": 2,
}
"""What may have changed while something was awaited, and so is asked for at several moments."""


BEFORE_AND_AFTER_AN_ANSWER = {"storage/stream_index:StreamIndexes.get": 2}
"""The same of an answer that is made anew: what was not read may have to be."""

VISITS = {
    "web/ws/subscriptions": 1,
    # The stream; then to attach, to subscribe, to send, and to detach.
    "streams/hub": 5,
    # To begin, to run, and to wait until the client has read enough.
    "history/joining": 3,
    # To begin, to fetch, and for what the live stream knows.
    "history/past_fetch": 3,
    # For the past as it is before, the candles, and the number of the newest revision.
    "history/service": 3,
    # The past as it is before, what is known, and the candles.
    "storage/store": 3,
    # To have a group of its own, to enter the channel, and to send.
    "streams/fanout": 3,
}
"""How often each of them is come to from another module, but the first. The numbers may only become smaller."""


async def _subscribe(relay: Running, bars: int) -> CallTrace:
    """Subscribe to a stream with some of its past; return the way of that request."""
    client = await relay.connect()
    await relay.app[DIRECTORY].lists_settled()
    trace = CallTrace("web/ws/connection:Connection._on_text")
    with trace.trace():
        await client.ask("subscribe", symbol="BTCUSDT", interval="1h", bars=bars)
        snapshot = await client.until_type("snapshot")
    assert len(snapshot["candles"]) == bars
    assert snapshot["complete"] is True
    return trace


async def test_a_subscription_passes_few_modules_and_comes_to_each_function_once(relay: Running) -> None:
    first = await relay.connect()
    await first.subscribe("BTCUSDT@1h", bars=50)
    await first.update()
    # So long the provider's answer itself is remembered, beside what is stored of it.
    await asyncio.sleep(relay.app[PROVIDERS]["binance"].info.fresh_s)
    history = relay.app[HISTORY]
    asked = history.calls.ended
    reading = await _subscribe(relay, 40)
    assert [module for module in reading.passed if module not in WAY] == READING
    served = history.served["cache"]
    trace = await _subscribe(relay, 40)
    assert (history.calls.ended, history.served["cache"]) == (asked, served + 1)
    assert trace.passed == WAY
    assert {name: count for name, count in trace.entered.items() if count > 1} == BEFORE_AND_AFTER
    assert {module: trace.visits[module] for module in WAY[1:]} == VISITS


async def test_where_the_provider_is_asked_the_joining_is_the_same(relay: Running) -> None:
    trace = await _subscribe(relay, 50)
    assert relay.app[HISTORY].calls.ended > 0
    assert [module for module in trace.passed if module in WAY[:6]] == WAY[:6]
    assert "history/provider_calls" in trace.passed
    again = {name for name, count in trace.entered.items() if count > 1}
    steps = ("web/ws/", "streams/", "history/joining:", "history/past_fetch:", "history/service:", "history/live_edge:")
    assert {name for name in again if name.startswith(steps)} == {"history/live_edge:live_of"}


async def test_an_answer_from_memory_is_found_in_few_files(relay: Running) -> None:
    async def ask(limit: int) -> CallTrace:
        trace = CallTrace("web/http/history:_history")
        with trace.trace():
            answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=limit, end_time=1_764_000_000)
        assert len(answer.body["candles"]) == limit
        return trace

    served = relay.app[HISTORY].served
    for _ in range(3):
        await ask(50)
    before = served["cache"]
    made, kept = await ask(40), await ask(50)
    assert served["cache"] == before + 2
    assert len([module for module in made.modules if not is_value(module)]) <= 15
    assert len(kept.modules) <= 10
    assert max(kept.entered.values()) == 1
    assert {name: count for name, count in made.entered.items() if count > 1} == BEFORE_AND_AFTER_AN_ANSWER
