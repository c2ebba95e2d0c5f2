"""Providers that answer for one symbol at a time: asked once, remembered within bounds, and in the way of no list."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest

from relay.core.clock import Clock, ProviderClock
from relay.core.errors import ProviderUnavailable, RateLimited, RequestError, UnknownSymbol
from relay.core.model import Instrument, PriceUpdate, ProviderInfo
from relay.instruments.directory import MOST_SETTLING, Directory
from relay.instruments.lookups import LOOKUP_LIMITS, Lookups
from relay.plugins.hookspecs import API_VERSION, hookimpl
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.storage.store import Store
from tests.support.conditions import eventually
from tests.unit.test_directory import Lists, found, refusal

NOTHING: tuple[PriceUpdate, ...] = ()
INFO = ProviderInfo("shop", API_VERSION, "Shop", ("demo",), ("1m", "1h"), calls_at_once=3, instruments_ttl_s=3600.0)


def share(symbol: str, **details: Any) -> Instrument:
    return Instrument(symbol, "demo", symbol, "USD", **details)


class Shop:
    """A provider that knows what it has when it is asked for it by name; each question takes `takes_s`."""

    def __init__(self, *symbols: str, name: str = "shop") -> None:
        self.__name__ = self.name = name
        self.shelf: dict[str, Any] = {symbol.upper(): share(symbol) for symbol in symbols}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.takes_s = 0.5
        self.at_once = self.most_at_once = 0

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return INFO._replace(name=self.name, title=self.name.title())

    @hookimpl
    async def relay_stream(self, watchlist: object) -> Any:
        for update in NOTHING:
            yield update

    @hookimpl
    async def relay_instrument(self, symbol: str) -> Any:
        self.asked.append(symbol)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        if symbol == "RAISES":
            raise UnknownSymbol("no such thing")
        return self.shelf.get(symbol)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = await Store.open(":memory:", Clock())
    yield opened
    await opened.close()


Start = Callable[..., Awaitable[Directory]]


@pytest.fixture
async def start(store: Store) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(*plugins: object, most_settling: int = MOST_SETTLING) -> Directory:
            directory = Directory(providers_of(session, *plugins), store.documents, most_settling=most_settling)
            await directory.start()
            stack.push_async_callback(directory.close)
            return directory

        yield begin


def providers_of(session: aiohttp.ClientSession, *plugins: object) -> list[Provider]:
    host = PluginHost()
    host.load(plugins, installed=False)
    assert not host.failures
    providers = [host.bind(loaded, {"key": None}, ProviderClock(Clock())) for loaded in host.loaded.values()]
    for provider in providers:
        provider.open(session)
    return providers


@pytest.fixture
async def lookups_of(store: Store) -> AsyncIterator[Callable[..., Lookups]]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        def make(shop: Shop, **limits: Any) -> Lookups:
            (provider,) = providers_of(session, shop)
            told: list[bool] = []
            lookups = Lookups(provider, store.documents, told.append, limits=LOOKUP_LIMITS._replace(**limits))
            stack.push_async_callback(lookups.close)
            return lookups

        yield make


MakeLookups = Callable[..., Lookups]


async def test_symbol_is_asked_for_once_however_many_want_it(lookups_of: MakeLookups) -> None:
    shop = Shop("AAPL")
    lookups = lookups_of(shop)
    await asyncio.gather(
        *(lookups.ask("AAPL", ["me"]) for _ in range(50)), *(lookups.ask("NOPE", ["me"]) for _ in range(50))
    )
    assert sorted(shop.asked) == ["AAPL", "NOPE"]
    assert lookups.get("AAPL") == share("AAPL")
    assert lookups.get("NOPE") is None
    for symbol in ("AAPL", "NOPE"):
        assert lookups.is_settled(symbol)
        await lookups.ask(symbol, ["me"])
    assert len(shop.asked) == 2


async def test_no_is_valid_for_a_while_and_yes_is_used_while_it_is_asked_again(lookups_of: MakeLookups) -> None:
    shop = Shop("AAPL")
    lookups = lookups_of(shop)
    for symbol in ("AAPL", "NOPE", "RAISES"):
        await lookups.ask(symbol, ["me"])
    missing = lookups.missing("NOPE"), lookups.missing("RAISES")
    assert [(one.is_known, one.text) for one in missing if one] == [(True, "Shop does not have it")] * 2
    await asyncio.sleep(LOOKUP_LIMITS.unknown_s)
    assert not lookups.is_settled("NOPE")
    shop.shelf["NOPE"] = share("NOPE")
    await lookups.ask("NOPE", ["me"])
    assert lookups.get("NOPE") is not None
    await asyncio.sleep(INFO.instruments_ttl_s)
    shop.shelf["AAPL"] = share("AAPL", status="paused")
    shop.asked.clear()
    began = asyncio.get_running_loop().time()
    await lookups.ask("AAPL", ["me"])
    assert asyncio.get_running_loop().time() == began
    assert lookups.standing("AAPL") == "trading"
    await eventually(lambda: lookups.standing("AAPL") == "paused")
    assert shop.asked == ["AAPL"]


async def test_one_answer_without_a_known_symbol_proves_nothing(lookups_of: MakeLookups) -> None:
    shop = Shop("AAPL")
    lookups = lookups_of(shop)
    await lookups.ask("AAPL", ["me"])
    del shop.shelf["AAPL"]
    await asyncio.sleep(INFO.instruments_ttl_s)
    for times in range(2, 4):
        await lookups.ask("AAPL", ["me"])
        await eventually(lambda times=times: len(shop.asked) == times)  # type: ignore[misc]
        await asyncio.sleep(1)
        assert lookups.standing("AAPL") == "trading"
        await asyncio.sleep(LOOKUP_LIMITS.unknown_s)
    await lookups.ask("AAPL", ["me"])
    await eventually(lambda: lookups.standing("AAPL") == "gone")


async def test_failure_is_told_for_a_moment_and_a_wait_that_is_asked_for_is_kept(lookups_of: MakeLookups) -> None:
    shop = Shop("AAPL")
    lookups = lookups_of(shop)
    shop.error = ProviderUnavailable("away", detail="10.0.0.7 is down")
    await lookups.ask("AAPL", ["me"])
    missing = lookups.missing("AAPL")
    assert missing is not None
    assert (missing.is_known, missing.text, lookups.problem) == (False, "away", "away")
    await lookups.ask("AAPL", ["me"])
    assert shop.asked == ["AAPL"]
    await asyncio.sleep(LOOKUP_LIMITS.failed_s)
    shop.error = RateLimited("slow down", 90.0)
    await lookups.ask("AAPL", ["me"])
    assert lookups.asks_in_s("AAPL") == pytest.approx(90.0)
    await asyncio.sleep(90)
    shop.error = None
    await lookups.ask("AAPL", ["me"])
    assert (lookups.get("AAPL"), lookups.problem) == (share("AAPL"), None)


async def test_a_provider_that_asks_to_wait_is_asked_for_no_other_symbol_meanwhile(
    lookups_of: MakeLookups, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop("AAPL", "TSLA")
    lookups = lookups_of(shop)
    shop.error = RateLimited("slow down", 90.0, detail="banned by 10.0.0.7")
    await lookups.ask("NOPE", ["me"])
    shop.error = None
    await asyncio.sleep(30)
    await lookups.ask("AAPL", ["me"])
    assert shop.asked == ["NOPE"]
    missing = lookups.missing("AAPL")
    assert missing is not None
    assert missing.text == "slow down"
    assert lookups.asks_in_s("AAPL") == pytest.approx(60.0, abs=1.0)
    await asyncio.sleep(61)
    await lookups.ask("TSLA", ["me"])
    assert lookups.get("TSLA") == share("TSLA")
    assert caplog.text.count("slow down (banned by 10.0.0.7)") == 1


async def test_who_waits_for_a_provider_that_hangs_is_told_so_and_the_answer_still_counts(
    lookups_of: MakeLookups,
) -> None:
    shop = Shop("AAPL")
    shop.takes_s = 30
    lookups = lookups_of(shop)
    began = asyncio.get_running_loop().time()
    await lookups.ask("AAPL", ["me"])
    assert asyncio.get_running_loop().time() - began == pytest.approx(LOOKUP_LIMITS.wait_s)
    missing = lookups.missing("AAPL")
    assert missing is not None
    assert missing.text == "Shop has not said yet whether it has it"
    await asyncio.sleep(30)
    assert lookups.get("AAPL") is not None
    assert shop.asked == ["AAPL"]


async def test_a_symbol_that_nobody_waits_for_any_more_is_not_asked_for(lookups_of: MakeLookups) -> None:
    shop = Shop(*(f"S{number}" for number in range(10)))
    shop.takes_s = 30
    lookups = lookups_of(shop)
    await asyncio.gather(*(lookups.ask(f"S{number}", ["me"]) for number in range(9)))
    left = asyncio.create_task(lookups.ask("S9", ["me"]))
    await asyncio.sleep(1.0)
    left.cancel()
    await asyncio.sleep(100.0)
    assert shop.asked == ["S0", "S1", "S2"]
    shop.takes_s = 0.5
    await lookups.ask("S8", ["me"])
    assert lookups.get("S8") is not None


async def test_a_symbol_that_somebody_still_waits_for_is_asked_for(lookups_of: MakeLookups) -> None:
    shop = Shop("S0", "S1", "S2", "S3")
    shop.takes_s = 5
    lookups = lookups_of(shop)
    gone, *others = (asyncio.create_task(lookups.ask(name, ["me"])) for name in ("S3", "S0", "S1", "S2", "S3"))
    await asyncio.sleep(1.0)
    gone.cancel()
    await asyncio.gather(*others)
    await asyncio.sleep(5.0)
    assert sorted(lookups.instruments) == ["S0", "S1", "S2", "S3"]


async def test_what_is_kept_and_asked_is_bounded(lookups_of: MakeLookups) -> None:
    shop = Shop(*(f"S{number}" for number in range(12)))
    lookups = lookups_of(shop, most=10, most_asked=20, rate=1.0, burst=5.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(12):
        lookups.begin(f"S{number}", "me")
    for number in range(30):
        lookups.begin(f"N{number}", "me")
    for number in range(8):
        lookups.begin(f"L{number}", "another client")
    # A client has no more than are free for others.
    assert lookups.missing("N29") is not None
    assert [lookups.missing(f"L{number}") is not None for number in (4, 5)] == [False, True]
    await eventually(lambda: len(shop.asked) == 16)
    # Five at once, then one a second.
    assert loop.time() - began >= 10
    assert shop.most_at_once == INFO.calls_at_once
    await asyncio.sleep(1)
    assert len(lookups.instruments) == 10
    assert set(lookups.instruments) < set(shop.shelf)
    assert sum(lookups.missing(f"N{number}") is not None for number in range(30)) <= 10


async def test_who_asks_for_many_symbols_holds_up_no_other(lookups_of: MakeLookups) -> None:
    shop = Shop("AAPL", "MSFT")
    lookups = lookups_of(shop, burst=1.0, rate=5.0, wait_s=60.0)
    many = [asyncio.create_task(lookups.ask(f"N{number}", ["greedy"])) for number in range(100)]
    await asyncio.sleep(1.0)
    await asyncio.gather(lookups.ask("AAPL", ["modest"]), lookups.ask("MSFT", ["other"]))
    before = shop.asked.index("AAPL")
    assert before < 15
    assert shop.asked.index("MSFT") <= before + 2
    # The 100th of one client, which another one asks for as well, comes in the turn of that one.
    await lookups.ask("N99", ["modest"])
    assert shop.asked.index("N99") < 25
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (share("MSFT"), "it is of MSFT, not of AAPL; case is ignored"),
        ({"symbol": "AAPL"}, "an instrument is dict, not Instrument"),
        (share("AAPL")._replace(asset_class="other"), "AAPL has the asset class 'other'"),
        (share("AAPL", extras={"a": {1}}), "extras is not JSON"),
    ],
)
async def test_answer_that_does_not_fit_is_a_failure_whose_cause_only_the_log_has(
    answer: Any, detail: str, lookups_of: MakeLookups, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    shop.shelf["AAPL"] = answer
    lookups = lookups_of(shop)
    await lookups.ask("AAPL", ["me"])
    missing = lookups.missing("AAPL")
    assert missing is not None
    assert missing.text == "Shop described AAPL wrongly"
    assert detail in caplog.text


async def test_what_is_known_outlives_the_process_and_is_asked_for_again(lookups_of: MakeLookups, store: Store) -> None:
    first = lookups_of(Shop("brk.B"))
    await first.ask("BRK.B", ["me"])
    await first.close()
    document = await store.documents.get("lookups:shop")
    assert document is not None
    assert orjson.loads(document.body) == [["brk.B", "demo", "brk.B", "USD", None, "trading"]]
    shop = Shop("brk.B")
    second = lookups_of(shop)
    await second.recall()
    await second.ask("BRK.B", ["me"])
    assert second.get("BRK.B") == share("brk.B")
    await eventually(lambda: shop.asked == ["BRK.B"])


async def test_what_is_known_is_replaced_and_not_changed_since_threads_read_it(lookups_of: MakeLookups) -> None:
    lookups = lookups_of(Shop("AAPL", "MSFT"))
    await lookups.ask("AAPL", ["me"])
    before = lookups.instruments
    await lookups.ask("MSFT", ["me"])
    assert ([*before], [*lookups.instruments]) == (["AAPL"], ["AAPL", "MSFT"])


# -- beside lists ----------------------------------------------------------------------------------


async def subscribe(directory: Directory, pin: str | None, symbol: str) -> tuple[str, str, str] | RequestError:
    """Resolve a name as the routes do."""
    if not directory.is_settled(pin, symbol):
        await directory.settled(pin, symbol, ["me"])
    try:
        return found(directory.resolve(pin, symbol, "1m"))
    except RequestError as error:
        return error


async def test_symbol_of_no_list_belongs_to_the_first_provider_that_says_it_has_it(start: Start) -> None:
    first, second = Shop("AAPL", name="first"), Shop("AAPL", "msft", name="second")
    directory = await start(first, Lists("list", "BTC"), second)
    assert await subscribe(directory, None, "BTC") == ("list", "BTC@1m", "BTC")
    assert (first.asked, second.asked) == ([], [])
    assert await subscribe(directory, None, "AAPL") == ("first", "AAPL@1m", "AAPL")
    assert await subscribe(directory, None, "MSFT") == ("second", "msft@1m", "MSFT")
    assert await subscribe(directory, "second", "AAPL") == ("second", "AAPL@1m", "second:AAPL")
    assert (first.asked, second.asked) == (["AAPL", "MSFT"], ["MSFT", "AAPL"])
    assert sorted(one.instrument.symbol for one in directory.everything()) == ["AAPL", "AAPL", "BTC", "msft"]
    assert directory.listing == ["first", "list", "second"]


async def test_answer_for_one_symbol_takes_it_from_no_list(start: Start) -> None:
    shop = Shop("BTC", name="first")
    directory = await start(shop, Lists("list", "BTC"))
    assert await subscribe(directory, "first", "BTC") == ("first", "BTC@1m", "first:BTC")
    assert await subscribe(directory, None, "BTC") == ("list", "BTC@1m", "BTC")


async def test_who_has_it_cannot_be_said_while_a_provider_cannot_be_asked(start: Start) -> None:
    first, second = Shop(name="first"), Shop("AAPL", name="second")
    first.error = ProviderUnavailable("away")
    directory = await start(first, second)
    await directory.settled(None, "NOPE", ["me"])
    error = refusal(directory, None, "NOPE")
    assert (error.code, error.message) == (
        "provider_unavailable",
        "First could not be asked whether it has 'NOPE': away",
    )
    assert error.retry_after == pytest.approx(LOOKUP_LIMITS.failed_s, abs=3)
    # Another one says that it has it, which the first may do as well.
    refused = await subscribe(directory, None, "AAPL")
    assert isinstance(refused, RequestError)
    assert refused.message == "First could not be asked whether it has 'AAPL': away"
    assert await subscribe(directory, "second", "AAPL") == ("second", "AAPL@1m", "second:AAPL")


async def test_answer_for_one_symbol_waits_for_the_list_of_any_provider(start: Start) -> None:
    late = Lists("list", "BTC")
    late.error = ProviderUnavailable("away")
    directory = await start(Shop("BTC", name="first"), late)
    assert await subscribe(directory, "first", "BTC") == ("first", "BTC@1m", "first:BTC")
    refused = await subscribe(directory, None, "BTC")
    assert isinstance(refused, RequestError)
    assert "may be a symbol of List" in refused.message


async def test_symbol_that_nobody_has_is_unknown_with_a_suggestion(start: Start) -> None:
    shop = Shop("AAPL")
    directory = await start(shop)
    await subscribe(directory, None, "AAPL")
    pinned, bare = await subscribe(directory, "shop", "APPL"), await subscribe(directory, None, "APPL")
    assert isinstance(pinned, RequestError)
    assert isinstance(bare, RequestError)
    assert (pinned.code, pinned.message) == (
        "unknown_symbol",
        "unknown symbol 'APPL': Shop does not have it; did you mean AAPL?",
    )
    assert bare.message == "unknown symbol 'APPL': no provider lists it; did you mean AAPL?"
    # The list of symbols has those that somebody asked for.
    nothing = await subscribe(directory, None, "ZZZZZZZZ")
    assert isinstance(nothing, RequestError)
    assert nothing.message == "unknown symbol 'ZZZZZZZZ': no provider lists it"


async def test_several_symbols_are_asked_for_beside_each_other(start: Start) -> None:
    shop = Shop("A", "B", "C")
    directory = await start(shop)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*[directory.settling(None, symbol, "me") for symbol in "ABC"])
    assert asyncio.get_running_loop().time() - began == pytest.approx(shop.takes_s, abs=0.1)
    assert await subscribe(directory, None, "C") == ("shop", "C@1m", "C")


async def test_all_who_wait_for_a_symbol_share_what_is_done_for_it(start: Start) -> None:
    directory = await start(Shop("A", "B"))
    first = directory.settling(None, "A", "me")
    assert directory.settling(None, "A", "me") is first
    assert directory.settling("shop", "A", "me") is not first
    await first
    assert directory.settling(None, "A", "me") is not first


async def test_so_many_symbols_of_a_provider_at_most_are_waited_for_at_a_time(start: Start) -> None:
    directory = await start(Shop("A", "B", "C", name="slow"), Shop("A", "B", "C", name="quick"), most_settling=2)
    for pin in ("slow", "quick", None):
        asked = [directory.settling(pin, symbol, client) for symbol, client in (("A", "one"), ("B", "two"))]
        with pytest.raises(RequestError, match="2 other symbols"):
            directory.settling(pin, "C", "three")
    await asyncio.gather(*asked)
    await directory.settling(None, "C", "me")


async def test_one_client_leaves_places_for_others_to_wait_for_a_symbol(start: Start) -> None:
    directory = await start(Shop("A", "B", "C"), most_settling=4)
    for symbol in "ABC":
        directory.settling(None, symbol, "greedy")
    with pytest.raises(RequestError, match="3 other symbols"):
        directory.settling(None, "D", "greedy")
    await directory.settling(None, "E", "modest")


async def test_a_symbol_of_many_comes_in_the_turn_of_another_client_who_waits_for_it(start: Start) -> None:
    shop = Shop()
    directory = await start(shop)
    waiting = [directory.settling("shop", f"N{number}", "greedy") for number in range(100)]
    await asyncio.sleep(1.0)
    await directory.settling("shop", "N99", "modest")
    assert shop.asked.index("N99") < 15
    await asyncio.gather(*waiting)


async def test_list_of_the_same_provider_comes_first(start: Start) -> None:
    class Both(Shop):
        @hookimpl
        async def relay_instruments(self) -> list[Instrument]:
            return [share("MAIN")]

    shop = Both("RARE")
    directory = await start(shop)
    await directory.lists_settled()
    assert await subscribe(directory, None, "MAIN") == ("shop", "MAIN@1m", "MAIN")
    assert shop.asked == []
    assert await subscribe(directory, None, "RARE") == ("shop", "RARE@1m", "RARE")
    assert directory.known_of("shop") == 2
