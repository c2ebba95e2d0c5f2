"""A provider that hangs, drips, is late or refuses: clients hear soon what is known, and the rest once it is there."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson
import pytest

from providers import BUILTIN
from relay.client import Gap, Refused, RelayClient, Snapshot, Update
from relay.commands.assistant_tools import CANDLES_WAIT_S, LATEST_WAIT_S, AssistantTools
from relay.core.clock import Clock
from relay.history.past_fetch import PAST_WAITS
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.rude_venue import BAD_MANNERS, MINUTE, RudePlugin, RudeVenue, rude_venue
from tests.support.running_relay import PREFIX, Message, Running
from tests.support.transports import Transport

SOON_S = PAST_WAITS.patience_s + 3.0
"""So soon a client has what is known: later than the relay promises, and long before a call of a provider ends."""


@pytest.fixture
async def venue() -> AsyncIterator[tuple[RudeVenue, str]]:
    async with rude_venue() as running:
        yield running


@pytest.fixture
def rude(venue: tuple[RudeVenue, str]) -> RudeVenue:
    return venue[0]


@pytest.fixture
async def relay(relay_with: StartRelay, venue: tuple[RudeVenue, str]) -> Running:
    clock = Clock(lambda: MINUTE + 30.0, asyncio.get_running_loop().time)
    return await relay_with(builtin=(*BUILTIN, RudePlugin(venue[1], candles_per_call=100)), clock=clock)


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("manner", BAD_MANNERS)
async def test_live_prices_and_an_honest_snapshot_come_soon_and_the_past_when_it_is_there(
    relay: Running, rude: RudeVenue, over: Transport, manner: str
) -> None:
    rude.candles = lambda query: manner
    client, began = await over.reader(relay), _now()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=50)
    assert (await client.until_type("subscription"))["symbol"] == "AAPL"
    assert _now() - began < PAST_WAITS.patience_s
    snapshot = await client.until_type("snapshot")
    await client.update()
    assert _now() - began < SOON_S
    assert snapshot["complete"] is False
    kinds = [message["type"] for message in client.received if message.get("symbol")]
    if manner == "refuses":
        return
    # Who was told that it waits is told when it need not wait any more.
    states = [message["status"] for message in client.received if message["type"] == "status"]
    assert states == ["connected", "backfilling", "connected"]
    assert kinds == ["subscription", "status", "status", "snapshot", "price_update"]
    assert snapshot["pending"] is True
    rude.candles = lambda query: "well"
    whole = await client.until(lambda message: message.get("replaces"), timeout_s=120.0)
    # What opens meanwhile is there too.
    assert [candle["time"] for candle in whole["candles"]][-50:] == [MINUTE - 60 * back for back in range(49, -1, -1)]
    assert (whole["complete"], whole["last_is_closed"], whole.get("pending")) == (True, False, None)
    newest = whole["candles"][-1]["close"]
    assert (await client.update())["candle"]["close"] > newest


async def test_many_streams_of_a_silent_provider_are_all_live_soon(relay: Running, rude: RudeVenue) -> None:
    rude.candles = lambda query: "hangs"
    client, began = await relay.connect(), _now()
    names = [f"rude:A{number}@1m" for number in range(40)]
    await client.ask("subscribe", streams=names, bars=50)
    live: set[str] = set()
    while len(live) < len(names):
        live.add((await client.update())["symbol"])
    assert _now() - began < SOON_S
    asked = {message["symbol"] for message in client.received if message.get("pending")}
    assert asked == live


async def test_what_is_stored_waits_behind_no_stream_that_hangs(relay: Running, rude: RudeVenue) -> None:
    await relay.get("history", symbol="rude:MSFT", interval="1m", limit=100)
    rude.candles = lambda query: "hangs"
    client, began = await relay.connect(), _now()
    await client.ask("subscribe", streams=["rude:AAPL@1m", "rude:MSFT@1m"], bars=50)
    stored = await client.until_type("snapshot", symbol="MSFT")
    assert _now() - began < SOON_S
    assert len(stored["candles"]) >= 49


async def test_a_call_that_hangs_holds_up_no_past_that_is_wanted_later(relay: Running, rude: RudeVenue) -> None:
    rude.candles = lambda query: "hangs" if query["symbol"] == "AAPL" else "well"
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=50)
    await client.until_type("snapshot", pending=True)
    began = _now()
    await client.ask("subscribe", streams=["rude:MSFT@1m"], bars=50)
    later = await client.until_type("snapshot", symbol="MSFT")
    assert _now() - began < PAST_WAITS.confirm_s
    assert (len(later["candles"]), later["complete"]) == (50, True)


async def test_a_provider_that_answers_each_of_many_pages_slowly_is_waited_for(relay: Running, rude: RudeVenue) -> None:
    # Each is there in less than the relay's patience; all of them take longer.
    rude.takes_s = 0.4 * PAST_WAITS.patience_s
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=450)
    snapshot = await client.until_type("snapshot")
    assert (len(snapshot["candles"]), snapshot["complete"]) == (450, True)


async def test_a_resume_is_told_what_is_missing_and_gets_it_as_revised(relay: Running, rude: RudeVenue) -> None:
    rude.candles = lambda query: "hangs"
    client, began = await relay.connect(), _now()
    since = MINUTE - 600
    await client.ask("subscribe", streams=["rude:AAPL@1m"], since=since)
    gap = await client.until_type("gap")
    snapshot = await client.until_type("snapshot")
    await client.update()
    assert _now() - began < SOON_S
    assert (gap["from"], snapshot["complete"]) == (since + 60, False)
    assert MINUTE - 60 < gap["to"] <= MINUTE
    assert "has not answered yet" in gap["reason"]
    rude.candles = lambda query: "well"
    times: list[int] = []
    while len(times) < 9:
        times.append((await client.until(lambda one: one.get("revised"), timeout_s=200.0))["candle"]["time"])
    assert times == list(range(since + 60, MINUTE, 60))


async def test_new_options_of_a_stream_whose_past_is_still_to_come_count_at_once(
    relay: Running, rude: RudeVenue
) -> None:
    rude.candles = lambda query: "hangs"
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=50)
    await client.until_type("snapshot")
    await client.ask("subscribe", streams=["rude:AAPL@1m"], extended=True, id=2)
    await client.answer(2)
    assert "quote_volume" in (await client.update())["candle"]
    rude.candles = lambda query: "well"
    whole = await client.until(lambda message: message.get("replaces"), timeout_s=120.0)
    assert len(whole["candles"]) >= 50
    assert "quote_volume" in whole["candles"][0]


async def test_who_goes_on_from_what_it_has_still_gets_the_past(relay: Running, rude: RudeVenue) -> None:
    rude.candles = lambda query: "hangs"
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=50)
    await client.until_type("snapshot")
    await client.ask("subscribe", streams=["rude:AAPL@1m"], since=MINUTE - 180, id=2)
    await client.answer(2)
    rude.candles = lambda query: "well"
    first = await client.until_type("snapshot")
    assert (first.get("replaces"), first["pending"]) == (None, True)
    assert [candle["time"] for candle in first["candles"]][:2] == [MINUTE - 120, MINUTE - 60]
    whole = await client.until(lambda message: message.get("replaces"), timeout_s=120.0)
    assert len(whole["candles"]) >= 50


async def test_events_that_are_resumed_before_the_past_came_begin_that_stream_anew(
    relay: Running, rude: RudeVenue
) -> None:
    rude.candles = lambda query: "hangs" if query["symbol"] == "AAPL" else "well"
    names = ["rude:AAPL@1m", "rude:MSFT@1m"]
    client = relay.event_client()
    await client.ask("subscribe", streams=names, bars=50)
    await client.seen("snapshot", symbol="AAPL", pending=True)
    await client.seen("snapshot", symbol="MSFT", pending=None)
    again = relay.event_client(client.last_id)
    await client.close()
    await again.ask("subscribe", streams=names, bars=50)
    first = await again.seen("snapshot", symbol="AAPL")
    resumed = await again.seen("snapshot", symbol="MSFT")
    assert (first["pending"], first["replaces"]) == (True, True)
    assert resumed.get("replaces") is None
    assert all(candle["time"] == MINUTE for candle in resumed["candles"])
    third = relay.event_client(again.last_id)
    await again.close()
    rude.candles = lambda query: "well"
    await third.ask("subscribe", streams=names, bars=50)
    whole = await third.until(lambda one: one.get("replaces") and not one.get("pending"), timeout_s=120.0)
    assert (whole["symbol"], whole["complete"]) == ("AAPL", True)
    assert len(whole["candles"]) >= 50
    # From then on it is resumed as any other.
    await third.update()
    last = relay.event_client(third.last_id)
    await third.close()
    await last.ask("subscribe", streams=names, bars=50)
    for symbol in ("AAPL", "MSFT"):
        snapshot = await last.seen("snapshot", symbol=symbol)
        assert snapshot.get("replaces") is None
        assert all(candle["time"] == MINUTE for candle in snapshot["candles"])


async def test_a_late_past_comes_also_to_who_had_its_share_of_candles_with_what_was_known(
    relay_with: StartRelay, venue: tuple[RudeVenue, str]
) -> None:
    rude, address = venue
    clock = Clock(lambda: MINUTE + 30.0, asyncio.get_running_loop().time)
    plugins = [RudePlugin(address)]
    relay = await relay_with(builtin=plugins, clock=clock, with_stand_ins=False, max_history_rows_per_minute=300)
    await relay.get("history", symbol="rude:AAPL", interval="1m", limit=305)
    rude.candles = lambda query: "hangs"
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=400)
    first = await client.until_type("snapshot", pending=True)
    assert len(first["candles"]) >= 304
    rude.candles = lambda query: "well"
    whole = await client.until_type("snapshot", replaces=True)
    assert (len(whole["candles"]) >= 400, whole["complete"]) == (True, True)
    assert not [message for message in client.received if message["type"] == "error"]


async def test_nothing_is_left_of_a_stream_that_is_left_while_its_past_is_still_to_come(
    relay: Running, rude: RudeVenue
) -> None:
    rude.candles = lambda query: "hangs"
    client = await relay.connect()
    await client.ask("subscribe", streams=["rude:AAPL@1m"], bars=50)
    await client.update()
    await client.ask("unsubscribe", streams=["rude:AAPL@1m"], id=2)
    await client.answer(2)
    await client.ask("list", id=3)
    assert (await client.answer(3))["streams"] == []
    await eventually(lambda: not relay.hub.streams)


async def test_the_client_in_python_has_prices_soon_and_then_the_past(relay: Running, rude: RudeVenue) -> None:
    rude.candles = lambda query: "hangs"
    async with RelayClient(relay.url) as client:
        began = _now()
        await client.subscribe("rude:AAPL@1m", bars=50)
        first: list[Snapshot] = []
        async for message in client:
            assert not isinstance(message, Gap)
            if isinstance(message, Snapshot):
                first.append(message)
            if isinstance(message, Update):
                break
        assert _now() - began < SOON_S
        assert [(one.is_complete, one.is_renewed) for one in first] == [(False, False)]
        rude.candles = lambda query: "well"
        async for message in client:
            if isinstance(message, Snapshot):
                assert message.is_renewed
                assert len(message.candles) >= 50
                break


async def _lines(relay: Running, symbols: str, **query: Any) -> list[Message]:
    """Return the answer of `history` of several symbols, with when each line came as `at`."""
    asked = {"interval": "1m", "format": "ndjson", "limit": "6000", "symbols": symbols, **query}
    found: list[Message] = []
    began = _now()
    # Compression would keep lines back until there are more.
    headers = {"Accept-Encoding": "identity"}
    url = f"{relay.url}{PREFIX}/history"
    async with aiohttp.ClientSession() as session, session.get(url, params=asked, headers=headers) as answer:
        assert answer.status == 200
        async for line in answer.content:
            found.append(orjson.loads(line) | {"at": _now() - began})
    return found


@pytest.fixture
async def paged(relay_with: StartRelay, venue: tuple[RudeVenue, str]) -> Running:
    """A relay that asks for many candles at once: what one line holds is one question."""
    clock = Clock(lambda: MINUTE + 30.0, asyncio.get_running_loop().time)
    plugins = [RudePlugin(venue[1], candles_per_call=5001), RudePlugin(venue[1], name="other", candles_per_call=5001)]
    return await relay_with(builtin=plugins, clock=clock, with_stand_ins=False)


@pytest.mark.parametrize("manner", ["hangs", "drips", "late", "refuses"])
async def test_lines_of_other_symbols_go_on_while_the_second_page_of_one_does_not_come(
    paged: Running, rude: RudeVenue, manner: str
) -> None:
    start = MINUTE - 60 * 6500

    def second_page(query: Mapping[str, str]) -> str:
        return manner if query["symbol"] == "BAD" and int(query["start"]) > start else "well"

    rude.candles = second_page
    found = await _lines(paged, "rude:BAD,rude:AAPL,other:MSFT,rude:IBM", start_time=str(start))
    counts = Counter(line["symbol"] for line in found if "type" not in line)
    others = [line["at"] for line in found if line["symbol"] in ("rude:AAPL", "MSFT", "rude:IBM", "AAPL", "IBM")]
    assert len(others) == 18_000
    assert max(others) < SOON_S
    errors = [line for line in found if "type" in line]
    if manner == "late":
        assert (errors, sorted(counts.values())) == ([], [6000] * 4)
    else:
        assert [line["code"] for line in errors] == ["provider_unavailable"]
        assert found[-1] is errors[0] or manner == "refuses"
        assert sorted(counts.values()) == [5000, 6000, 6000, 6000]


async def test_lines_of_a_provider_that_is_silent_end_after_the_time_of_one_call(
    paged: Running, rude: RudeVenue
) -> None:
    rude.candles = lambda query: "hangs"
    found = await _lines(paged, ",".join(f"rude:A{number}" for number in range(20)), limit="100")
    assert [line["code"] for line in found] == ["provider_unavailable"] * 20
    assert max(line["at"] for line in found) < 90.0


async def test_what_another_client_waits_for_holds_up_no_symbol_of_a_provider_that_failed(
    paged: Running, rude: RudeVenue
) -> None:
    rude.candles = lambda query: "refuses" if query["symbol"] != "BAD" else "hangs"
    other = asyncio.create_task(paged.get("history", symbol="rude:BAD", interval="1m", limit=100))
    await eventually(lambda: rude.candles_asked)
    found = await _lines(paged, "rude:A,rude:B,rude:BAD", limit="100")
    assert [line["code"] for line in found] == ["provider_unavailable"] * 3
    assert max(line["at"] for line in found) < SOON_S
    other.cancel()


async def test_a_client_that_asks_for_many_unknown_names_holds_up_the_lookup_of_no_other(
    relay_with: StartRelay, venue: tuple[RudeVenue, str]
) -> None:
    rude, address = venue
    rude.takes_s = 1.0
    relay = await relay_with(builtin=[RudePlugin(address)], with_stand_ins=False, tokens={"a": "first", "b": "second"})
    greedy, modest = await relay.connect(query="?token=first"), await relay.connect(query="?token=second")
    await greedy.ask("subscribe", streams=[f"rude:NO{number}@1m" for number in range(100)])
    await greedy.ask("subscribe", streams=[f"rude:NO{number}@1m" for number in range(100, 200)])
    await eventually(lambda: len(rude.asked) >= 4)
    await modest.subscribe("rude:AAPL@1m")
    assert rude.asked.index("AAPL") < 20
    url = f"{relay.url}{PREFIX}/history?symbol=rude:MSFT&interval=1m&limit=5"
    headers = {"Authorization": "Bearer second"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
        assert answer.status == 200
    assert rude.asked.index("MSFT") < 40


@pytest.mark.parametrize("manner", BAD_MANNERS)
async def test_an_assistant_hears_soon_what_is_known_and_what_is_not(
    relay: Running, rude: RudeVenue, manner: str
) -> None:
    # So long an answer about the present is taken for a new one.
    await relay.get("history", symbol="rude:AAPL", interval="1m", limit=5)
    await asyncio.sleep(60.0)
    rude.candles = lambda query: manner
    async with RelayClient(relay.url) as client:
        tools, began = AssistantTools(client), _now()
        found = await tools.latest(["rude:AAPL", "rude:MSFT"])
        assert _now() - began < LATEST_WAIT_S + 2.0
        known, unknown = found.values["latest"]
        assert known["time"] is not None
        assert known["error"].startswith("this candle may be old: ")
        assert "close" not in unknown
        assert unknown["error"]
        if manner != "refuses":
            assert f"within {LATEST_WAIT_S} s" in found.text
            some = await tools.candles("rude:AAPL", "1m", 5)
            assert _now() - began < LATEST_WAIT_S + CANDLES_WAIT_S + 3.0
            assert (len(some.values["rows"]) >= 4, some.values["is_complete"]) == (True, False)
            assert "candles may be missing" in some.text


@pytest.mark.parametrize("manner", BAD_MANNERS)
async def test_an_assistant_hears_soon_that_a_name_is_not_known_yet(
    relay: Running, rude: RudeVenue, manner: str
) -> None:
    rude.lookups = lambda query: manner
    async with RelayClient(relay.url) as client:
        began = _now()
        (row,) = (await AssistantTools(client).latest(["rude:AAPL"])).values["latest"]
        assert _now() - began < LATEST_WAIT_S + 2.0
        assert row["code"] == "provider_unavailable"


async def test_a_name_that_is_looked_up_slowly_leaves_its_candles_the_rest_of_the_time(
    relay: Running, rude: RudeVenue
) -> None:
    rude.takes_s, rude.candles = 2.0, lambda query: "hangs"
    began = _now()
    answer = await relay.get("history", symbol="rude:AAPL", interval="1m", wait_s=3)
    assert (answer.status, answer.body["complete"]) == (200, False)
    assert _now() - began < 4.0


async def test_what_a_silent_provider_would_have_to_confirm_is_neither_waited_for_nor_told(
    relay_with: StartRelay, venue: tuple[RudeVenue, str]
) -> None:
    rude, address = venue
    plugin = RudePlugin(address, candles_per_call=100)
    clock = Clock(lambda: MINUTE + 30.0, asyncio.get_running_loop().time)
    relay = await relay_with(builtin=[plugin], with_stand_ins=False, clock=clock)
    asked: dict[str, Any] = {"symbol": "rude:AAPL", "interval": "1m", "limit": 50}
    await relay.get("history", **asked, end_time=MINUTE - 6000)
    # As if the symbol named something else now; nobody says whether it does.
    plugin.price = 500.0
    rude.candles = lambda query: "well" if rude.candles_asked <= 2 else "hangs"
    began = _now()
    answer = await relay.get("history", **asked, start_time=MINUTE - 6600, wait_s=1)
    assert rude.candles_asked == 3
    assert (answer.status, answer.body["candles"], answer.body["complete"]) == (200, [], False)
    assert _now() - began < 3.0


async def test_history_is_answered_with_what_is_known_after_the_time_that_is_given(
    relay: Running, rude: RudeVenue
) -> None:
    first = (await relay.get("history", symbol="rude:AAPL", interval="1m", limit=5)).body
    assert "complete" not in first
    rude.candles = lambda query: "hangs"
    for wait_s in (0, 3):
        began = _now()
        answer = await relay.get("history", symbol="rude:AAPL", interval="1m", limit=100, wait_s=wait_s)
        assert _now() - began < wait_s + 2.0
        assert (answer.status, answer.body["complete"]) == (200, False)
        # What closed a moment ago may still change.
        assert answer.body["candles"][-1] in first["candles"]
    refused = await relay.get("history", symbol="rude:AAPL", interval="1m", wait_s=3, format="csv")
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")
    async with RelayClient(relay.url) as client:
        known = await client.history("rude:AAPL", "1m", limit=100, wait_s=1)
        assert (known.is_complete, bool(known.candles)) == (False, True)
        with pytest.raises(Refused):
            await client.history("rude:NOPE", "1m", wait_s=1)


async def test_history_waits_once_for_a_name_and_its_candles_together(relay: Running, rude: RudeVenue) -> None:
    rude.takes_s = 5.0
    rude.candles = lambda query: "hangs"
    began = _now()
    answer = await relay.get("history", symbol="rude:AAPL", interval="1m", wait_s=6)
    assert _now() - began < 6 + 2.0
    assert (answer.status, answer.body["candles"], answer.body["complete"]) == (200, [], False)


async def test_history_that_may_not_wait_asks_no_provider(relay: Running, rude: RudeVenue) -> None:
    for _ in range(3):
        answer = await relay.get("history", symbol="rude:AAPL", interval="1m", wait_s=0)
        assert (answer.status, answer.body["code"]) == (503, "provider_unavailable")
    await asyncio.sleep(5.0)
    assert not rude.asked
    await relay.get("history", symbol="rude:AAPL", interval="1m", limit=5)
    before = rude.candles_asked
    for _ in range(3):
        answer = await relay.get("history", symbol="rude:AAPL", interval="1m", limit=100, wait_s=0)
        assert (answer.status, answer.body["complete"]) == (200, False)
        await asyncio.sleep(5.0)
    assert rude.candles_asked == before
