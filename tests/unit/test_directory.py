"""Which provider serves a symbol, and what a provider whose list is late, wrong or gone means for the others."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest

from relay.core.clock import Clock, ProviderClock
from relay.core.compact_instruments import compact
from relay.core.errors import Code, ProviderUnavailable, RateLimited, RequestError
from relay.core.model import Instrument, PriceUpdate, ProviderInfo, Setting
from relay.core.threads import MANY
from relay.instruments.directory import Directory, Target
from relay.instruments.listing import Listing
from relay.instruments.saved_list import WAITS, ListWaits
from relay.plugins.hookspecs import API_VERSION, hookimpl
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.storage.store import Store
from tests.support.conditions import eventually

NOTHING: tuple[PriceUpdate, ...] = ()


class Lists:
    """A provider that lists what `symbols` holds; each question waits for `may_answer`."""

    def __init__(
        self, name: str, *symbols: str, needs_key: str = "", asset_class: str = "demo", **description: Any
    ) -> None:
        # What tells one built-in plugin from another.
        self.__name__ = self.name = name
        self.symbols: Any = symbols
        self.needs_key = needs_key
        self.asset_class = asset_class
        self.description = description
        self.paused: set[str] = set()
        self.extras: dict[str, Any] | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.asked = 0

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name=self.name, api=API_VERSION, title=self.name.title(), asset_classes=(self.asset_class,),
            intervals=("1m", "1h"), settings=(Setting("key", is_secret=True),), needs_key=self.needs_key,
            **self.description,
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: object) -> Any:
        for update in NOTHING:
            yield update

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        plain = [Instrument(symbol, self.asset_class, "B", "Q", extras=self.extras) for symbol in self.symbols]
        return [one._replace(status="paused") if one.symbol in self.paused else one for one in plain]


class Open:
    """A provider without a list."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(name="open", api=API_VERSION, title="Open", asset_classes=("any",), intervals=("1m",))

    @hookimpl
    async def relay_stream(self, watchlist: object) -> Any:
        for update in NOTHING:
            yield update


Start = Callable[..., Awaitable[Directory]]


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = await Store.open(":memory:", Clock())
    yield opened
    await opened.close()


@pytest.fixture
async def start(store: Store) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(
            *plugins: object,
            ttl_s: float = 0.05,
            retry_s: Sequence[float] = (2.0,),
            settle_s: float = 10.0,
            quick_s: float = 2.0,
            **hears: Any,
        ) -> Directory:
            host = PluginHost()
            host.load(plugins, installed=False)
            assert not host.failures
            providers = [
                host.bind(host.loaded[name], {"key": None}, ProviderClock(Clock())) for name in host.loaded
            ]  # fmt: skip
            for provider in providers:
                provider.info = provider.info._replace(instruments_ttl_s=ttl_s)
                provider.open(session)
            waits = ListWaits(0.0, retry_s=retry_s, settle_s=settle_s, quick_s=quick_s)
            directory = Directory(providers, store.documents, waits=waits, **hears)
            await directory.start()
            stack.push_async_callback(directory.close)
            return directory

        yield begin


def found(target: Target) -> tuple[str, str, str]:
    return target.provider.name, str(target.key), target.name


def refusal(directory: Directory, pin: str | None, symbol: str, interval: str = "1m") -> RequestError:
    with pytest.raises(RequestError) as refused:
        directory.resolve(pin, symbol, interval)
    return refused.value


async def test_symbol_belongs_to_the_first_provider_that_lists_it(start: Start) -> None:
    directory = await start(Lists("one", "AAA", "BBB"), Lists("two", "BBB", "CCC"))
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m")) == ("one", "BBB@1m", "BBB")
    assert found(directory.resolve("one", "BBB", "1m")) == ("one", "BBB@1m", "BBB")
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")
    assert found(directory.resolve("two", "CCC", "1m")) == ("two", "CCC@1m", "CCC")
    assert [(one.instrument.symbol, one.provider.name) for one in [*directory.everything()]] == [
        ("AAA", "one"), ("BBB", "one"), ("BBB", "two"), ("CCC", "two"),
    ]  # fmt: skip


async def test_order_of_providers_counts_not_the_order_of_their_answers(start: Start) -> None:
    slow, fast = Lists("one", "BBB"), Lists("two", "BBB")
    slow.may_answer.clear()
    directory = await start(slow, fast)
    waiting = asyncio.create_task(directory.settled(None, "BBB", ["me"]))
    await eventually(lambda: [*directory.everything()])
    assert not waiting.done()
    assert not directory.is_settled(None, "BBB")
    slow.may_answer.set()
    await waiting
    assert directory.is_settled(None, "BBB")
    assert found(directory.resolve(None, "BBB", "1m")) == ("one", "BBB@1m", "BBB")


async def test_symbol_of_an_earlier_list_waits_for_no_later_one(start: Start) -> None:
    hanging = Lists("two", "CCC")
    hanging.may_answer.clear()
    directory = await start(Lists("one", "AAA"), hanging, quick_s=0.1)
    await directory.settled(None, "AAA", ["me"])
    assert directory.is_settled(None, "AAA")
    assert directory.is_settled("one", "AAA")
    assert not directory.is_settled("one", "NOPE")
    await directory.settled("one", "NOPE", ["me"])
    assert found(directory.resolve(None, "AAA", "1m"))[0] == "one"
    assert refusal(directory, None, "CCC").code == "provider_unavailable"
    assert refusal(directory, "one", "NOPE").code == "unknown_symbol"


async def test_nobody_waits_for_ever(start: Start) -> None:
    hanging = Lists("one", "AAA")
    hanging.may_answer.clear()
    directory = await start(hanging, settle_s=0.1, quick_s=0.1)
    for _ in range(5):
        await directory.settled(None, "AAA", ["me"])
    fault = refusal(directory, None, "AAA")
    assert fault.code == "provider_unavailable"
    assert "still being loaded" in fault.message


async def test_pin_of_a_provider_that_is_switched_off_is_no_symbol_of_another(start: Start) -> None:
    directory = await start(Open(), switched_off=["gone"])
    error = refusal(directory, "gone", "X")
    assert (error.code, error.symbol) == (Code.UNKNOWN_SYMBOL, "gone:X")
    assert error.message == (
        "unknown symbol 'X': the provider gone is switched off in this relay; enabled providers are open"
    )
    assert found(directory.resolve("other", "X", "1m")) == ("open", "OTHER:X@1m", "OTHER:X")


async def test_who_chooses_a_provider_that_is_switched_off_is_told_so(start: Start) -> None:
    directory = await start(Lists("one", "AAA"), switched_off=["gone"])
    with pytest.raises(RequestError) as caught:
        directory.check_provider("gone")
    assert caught.value.message == "the provider gone is switched off in this relay; use one of one"


async def test_owner_stays_while_the_process_runs(start: Start) -> None:
    first, second = Lists("one", "AAA"), Lists("two", "BBB")
    directory = await start(first, second)
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "BBB")
    first.symbols = ("AAA", "BBB")
    await eventually(lambda: len([*directory.everything()]) == 3)
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "BBB")
    assert found(directory.resolve("one", "BBB", "1m")) == ("one", "BBB@1m", "one:BBB")


async def test_symbol_that_its_owner_delists_goes_to_another_provider_by_its_long_name(start: Start) -> None:
    first, second = Lists("one", "AAA", "BBB"), Lists("two", "BBB")
    directory = await start(first, second)
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m"))[0] == "one"
    first.symbols = ("AAA",)
    await eventually(lambda: directory.standing("one", "BBB") == "gone")
    assert first.asked >= 4
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")


async def test_lists_are_refreshed_again_and_again(start: Start) -> None:
    lists = Lists("one", "AAA")
    directory = await start(lists)
    await eventually(lambda: lists.asked >= 3)
    lists.symbols = ("AAA", "BBB")
    await eventually(lambda: len([*directory.everything()]) == 2)


async def test_each_list_that_a_provider_gave_is_told_before_it_is_used(start: Start) -> None:
    told: list[tuple[str, list[str], int]] = []
    lists = Lists("one", "AAA", "BBB")

    async def hear(provider: Provider, symbols: Collection[str]) -> None:
        told.append((provider.name, sorted(symbols), len([*directory.everything()])))

    directory = await start(lists, on_list=hear)
    await eventually(lambda: told)
    lists.symbols = ("AAA",)
    await eventually(lambda: told[-1][2] == 1)
    assert told[0] == ("one", ["AAA", "BBB"], 0)
    # One answer makes nothing absent.
    assert ("one", ["AAA", "BBB"], 2) in told
    await eventually(lambda: told[-1] == ("one", ["AAA"], 1))


async def test_list_is_remembered_for_the_next_run(start: Start, store: Store) -> None:
    first = await start(Lists("one", "AAA"))
    await first.lists_settled()
    await eventually(lambda: directory_is_stored(store))
    failing = Lists("one")
    failing.error = ProviderUnavailable("cannot connect")
    second = await start(failing)
    await second.lists_settled()
    assert found(second.resolve(None, "AAA", "1m"))[0] == "one"
    assert second.problem("one") == "cannot connect"
    document = await store.documents.get("instruments:one")
    assert document is not None
    assert orjson.loads(document.body) == [["AAA", "demo", "B", "Q", None, "trading"]]


async def test_many_instruments_are_taken_stored_and_read_beside_the_event_loop(
    start: Start, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"take": set(), "compact": set(), "read": set()}

    def noting(name: str, work: Any) -> Any:
        def called(*given: Any) -> Any:
            threads[name].add(threading.get_ident())
            return work(*given)

        return called

    monkeypatch.setattr(Listing, "take", noting("take", Listing.take))
    monkeypatch.setattr("relay.plugins.judged_instruments.compact", noting("compact", compact))
    monkeypatch.setattr("relay.instruments.saved_list.compact", noting("read", compact))
    lists = Lists("one", *(f"S{number}" for number in range(MANY + 1)))
    first = await start(lists)
    for _ in range(1000):
        if document := await store.documents.get("instruments:one"):
            break
        await asyncio.sleep(0.01)
    assert document is not None
    # No part of it is parsed for long.
    assert len(orjson.loads(document.body)) == MANY + 1
    assert max(map(len, document.body.split(b",\n"))) < 30_000
    failing = Lists("one")
    failing.error = ProviderUnavailable("cannot connect")
    second = await start(failing)
    assert sum(1 for _ in second.everything()) == MANY + 1
    assert all(threads.values())
    assert all(threading.get_ident() not in used for used in threads.values())
    lists.symbols = (*lists.symbols, "NEW")
    threads["take"].clear()
    first.ask_anew("one")
    await eventually(lambda: first.standing("one", "NEW") == "trading")
    assert threading.get_ident() not in threads["take"]


async def test_extras_alone_make_no_other_list(start: Start) -> None:
    lists = Lists("one", "AAA")
    lists.extras = {"venue": {"limit": "1.0"}}
    directory = await start(lists, ttl_s=60.0)
    await eventually(lambda: directory.lists_taken > 1)
    version = directory.version
    lists.extras = {"venue": {"limit": "2.0"}}
    taken = directory.lists_taken
    directory.ask_anew("one")
    await eventually(lambda: directory.lists_taken > taken)
    assert directory.version == version
    (only,) = directory.everything()
    assert only.instrument.extras == {"venue": {"limit": "2.0"}}


async def test_a_symbol_that_begins_like_another_provider_is_told_with_its_own(start: Start) -> None:
    directory = await start(Lists("one", "TWO:AAA", "X:BBB"), Lists("two", "AAA"))
    await directory.lists_settled()
    assert found(directory.resolve("one", "TWO:AAA", "1m")) == ("one", "TWO:AAA@1m", "one:TWO:AAA")
    assert found(directory.resolve("two", "AAA", "1m")) == ("two", "AAA@1m", "AAA")
    # Nobody is called X.
    assert found(directory.resolve("x", "BBB", "1m")) == ("one", "X:BBB@1m", "X:BBB")


def directory_is_stored(store: Store) -> bool:
    connection: Any = store._database.connection._conn
    return connection is not None and connection.total_changes > 0


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b"[1]", b"[[1]]", b'[[5,"demo","a","b",null]]', b'[["A","demo","a","b",7]]']
)
async def test_list_of_an_earlier_run_that_makes_no_sense_is_left_out(start: Start, store: Store, body: bytes) -> None:
    await store.documents.put("instruments:one", body)
    failing = Lists("one")
    failing.error = ProviderUnavailable("cannot connect")
    directory = await start(failing)
    await directory.lists_settled()
    assert refusal(directory, None, "AAA").code == "provider_unavailable"


@pytest.mark.parametrize("symbols", [(None,), (5,), ("AAA", b"B")])
async def test_list_that_makes_no_sense_ends_nothing(start: Start, symbols: Any) -> None:
    broken = Lists("one")
    broken.symbols = symbols
    directory = await start(broken, Lists("two", "CCC"), retry_s=(0.05,))
    await directory.lists_settled()
    assert found(directory.resolve("two", "CCC", "1m"))[0] == "two"
    broken.symbols = ("AAA",)
    await eventually(lambda: any(one.instrument.symbol == "AAA" for one in [*directory.everything()]))


async def test_failed_list_is_asked_for_again(start: Start) -> None:
    lists = Lists("one", "AAA")
    lists.error = ProviderUnavailable("cannot connect")
    directory = await start(lists, retry_s=(0.05,))
    await directory.lists_settled()
    fault = refusal(directory, None, "AAA")
    assert (fault.code, fault.retry_after) == ("provider_unavailable", 0.05)
    assert "cannot connect" in fault.message
    lists.error = None
    await eventually(lambda: [*directory.everything()])
    assert directory.problem("one") is None


async def test_list_that_fails_again_and_again_is_asked_for_ever_more_rarely(start: Start) -> None:
    assert list(WAITS.retry_s) == sorted(WAITS.retry_s)
    lists = Lists("one", "AAA")
    lists.error = ProviderUnavailable("cannot connect")
    directory = await start(lists, retry_s=(0.05, 900.0))
    await eventually(lambda: (refusal(directory, None, "AAA").retry_after or 0) > 100)
    assert lists.asked == 2


async def test_provider_without_list_takes_what_nobody_lists(start: Start) -> None:
    directory = await start(Lists("one", "AAA"), Open())
    await directory.lists_settled()
    assert found(directory.resolve(None, "XYZ", "1m")) == ("open", "XYZ@1m", "XYZ")
    assert found(directory.resolve("open", "XYZ", "1m")) == ("open", "XYZ@1m", "XYZ")
    assert found(directory.resolve("open", "AAA", "1m")) == ("open", "AAA@1m", "open:AAA")
    assert found(directory.resolve(None, "AAA", "1m")) == ("one", "AAA@1m", "AAA")


async def test_colon_belongs_to_the_symbol_when_no_provider_is_called_so(start: Start) -> None:
    directory = await start(Lists("one", "IX:SPX"))
    await directory.settled("ix", "SPX", ["me"])
    assert found(directory.resolve("ix", "SPX", "1m")) == ("one", "IX:SPX@1m", "IX:SPX")
    fault = refusal(directory, "nobody", "SPX")
    assert (fault.code, fault.symbol) == ("unknown_symbol", "nobody:SPX")
    assert "'NOBODY:SPX'" in fault.message


async def test_own_spelling_of_the_provider_is_kept_for_it(start: Start) -> None:
    directory = await start(Lists("one", "BrkB"))
    await directory.lists_settled()
    assert found(directory.resolve(None, "BRKB", "1m")) == ("one", "BrkB@1m", "BRKB")


async def test_refusals_name_what_would_be_accepted(start: Start) -> None:
    directory = await start(Lists("one", "AAA"))
    await directory.lists_settled()
    fault = refusal(directory, None, "AAA", "1s")
    assert (fault.code, fault.symbol, fault.interval) == ("unsupported_interval", "AAA", "1s")
    assert "1m 1h" in fault.message
    with pytest.raises(RequestError, match=r"'stocks'.*demo"):
        directory.check_asset_class("stocks")


async def test_provider_that_needs_a_key_says_so_even_without_its_list(start: Start) -> None:
    locked = Lists("one", "AAA", needs_key="key")
    directory = await start(locked)
    await directory.lists_settled()
    assert "RELAY_ONE_KEY" in refusal(directory, None, "AAA").message
    # Only a restart brings the key.
    assert refusal(directory, None, "AAA").retry_after == 3600
    locked.error = ProviderUnavailable("401")
    assert "RELAY_ONE_KEY" in refusal(directory, "one", "AAA").message
    assert refusal(directory, "one", "AAA").retry_after == 3600


def test_a_provider_is_found_by_name_only_among_those_given() -> None:
    providers: Sequence[Provider] = ()
    directory = Directory(providers, None)  # type: ignore[arg-type]  # it stores nothing before it starts
    assert refusal(directory, "one", "AAA").code == "unknown_symbol"


async def until_settled(directory: Directory, pin: str | None, symbol: str) -> tuple[str, str, str]:
    """Resolve a name as the routes do."""
    await directory.settled(pin, symbol, ["me"])
    return found(directory.resolve(pin, symbol, "1m"))


# -- a list that is missing ------------------------------------------------------------------------


def away(name: str, *symbols: str, asset_class: str = "demo", **description: Any) -> Lists:
    lists = Lists(name, *symbols, asset_class=asset_class, **description)
    lists.error = ProviderUnavailable("cannot connect")
    return lists


async def test_a_symbol_does_not_change_its_venue_with_what_could_be_reached(start: Start) -> None:
    first, second = away("one", "BBB"), Lists("two", "BBB")
    directory = await start(first, second)
    await directory.settled(None, "BBB", ["me"])
    fault = refusal(directory, None, "BBB")
    assert (fault.code, fault.retry_after) == ("provider_unavailable", 2.0)
    assert fault.message == (
        "'BBB' may be a symbol of One, but that symbol list is not loaded yet (cannot connect); "
        "to use Two, write two:BBB"
    )
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")
    first.error = None
    await directory.settled(None, "BBB", ["me"])
    await eventually(lambda: len([*directory.everything()]) == 2)
    assert found(directory.resolve(None, "BBB", "1m")) == ("one", "BBB@1m", "BBB")
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")


async def test_what_a_stream_is_called_does_not_change_when_the_missing_list_comes(start: Start) -> None:
    first = away("one", "AAA")
    directory = await start(first, Lists("two", "BBB"))
    await directory.settled("two", "BBB", ["me"])
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")
    first.error = None
    await directory.settled(None, "AAA", ["me"])
    await eventually(lambda: len([*directory.everything()]) == 2)
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")


async def test_the_list_of_an_earlier_run_decides_while_the_provider_is_away(start: Start, store: Store) -> None:
    # As a version wrote it that knew no status.
    await store.documents.put("instruments:one", b'[["BBB","demo","B","Q",null]]')
    directory = await start(away("one"), Lists("two", "BBB", "CCC"))
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m")) == ("one", "BBB@1m", "BBB")
    assert found(directory.resolve(None, "CCC", "1m")) == ("two", "CCC@1m", "CCC")
    assert directory.standing("one", "BBB") == "trading"


async def test_a_missing_list_is_no_doubt_about_what_its_provider_cannot_have(start: Start) -> None:
    directory = await start(away("one", symbol_form="[A-Z]+"), Lists("two", "EUR/USD", "BBB", asset_class="forex"))
    await directory.settled(None, "EUR/USD", ["me"])
    assert found(directory.resolve(None, "EUR/USD", "1m")) == ("two", "EUR/USD@1m", "EUR/USD")
    # Of another asset class it may have something that is called so.
    assert refusal(directory, None, "BBB").code == "provider_unavailable"


async def test_a_list_has_nothing_that_its_provider_says_it_cannot_have(
    start: Start, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.documents.put("instruments:one", b'[["EUR/USD","demo","B","Q",null],["AAA","demo","B","Q",null]]')
    directory = await start(Lists("one", "aaa", "EUR/USD", symbol_form="[A-Z]+"), Lists("two", "EUR/USD"))
    assert directory.standing("one", "EUR/USD") == "unknown"
    await directory.lists_settled()
    assert found(directory.resolve(None, "EUR/USD", "1m"))[0] == "two"
    assert found(directory.resolve(None, "AAA", "1m"))[0] == "one"
    assert "EUR/USD does not fit symbol_form, '[A-Z]+'" in caplog.text


@pytest.mark.parametrize("asset_class", ["future", "crypto", "stocks"])
async def test_a_name_is_not_given_to_a_later_provider_while_an_earlier_list_is_late(
    start: Start, asset_class: str
) -> None:
    spot = Lists("spot", "BTCUSDT", asset_class="crypto")
    spot.may_answer.clear()
    directory = await start(spot, Lists("other", "BTCUSDT", asset_class=asset_class))
    await directory.lists_settled("other")
    assert not directory.is_settled(None, "BTCUSDT")
    asked = asyncio.create_task(directory.settled(None, "BTCUSDT", ["me"]))
    await asyncio.sleep(0.1)
    assert not asked.done()
    spot.may_answer.set()
    await asked
    assert directory.resolve(None, "BTCUSDT", "1m").provider.name == "spot"


async def test_a_list_of_an_earlier_run_is_confirmed_before_a_name_is_given_to_another(
    start: Start, store: Store
) -> None:
    await store.documents.put("instruments:one", b'[["AAA","demo","B","Q",null]]')
    first = Lists("one", "AAA", "NEW")
    first.may_answer.clear()
    directory = await start(first, Lists("two", "NEW"))
    await directory.lists_settled("two")
    assert directory.is_settled(None, "AAA")
    assert not directory.is_settled(None, "NEW")
    assert not directory.is_settled("two", "NEW")
    asked = asyncio.create_task(directory.settled("two", "NEW", ["me"]))
    await asyncio.sleep(0.1)
    assert not asked.done()
    first.may_answer.set()
    await asked
    assert found(directory.resolve("two", "NEW", "1m")) == ("two", "NEW@1m", "two:NEW")
    assert found(directory.resolve(None, "NEW", "1m")) == ("one", "NEW@1m", "NEW")


async def test_a_list_of_an_earlier_run_counts_when_its_provider_says_nothing_for_a_while(
    start: Start, store: Store
) -> None:
    await store.documents.put("instruments:one", b'[["AAA","demo","B","Q",null]]')
    hanging = Lists("one", "AAA")
    hanging.may_answer.clear()
    directory = await start(hanging, Lists("two", "BBB"))
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await directory.settled(None, "BBB", ["me"])
    assert asyncio.get_running_loop().time() - began <= WAITS.quick_s
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "BBB")


@pytest.mark.parametrize("asked", [None, "two"])
async def test_an_empty_list_says_nothing_of_a_name(start: Start, asked: str | None) -> None:
    first = Lists("one")
    directory = await start(first, Lists("two", "BBB"), ttl_s=60.0)
    await directory.settled(asked, "BBB", ["me"])
    assert refusal(directory, None, "BBB").code == "provider_unavailable"
    assert found(directory.resolve("two", "BBB", "1m")) == ("two", "BBB@1m", "two:BBB")


async def test_symbols_that_are_always_pinned_are_nobodys_alone(start: Start) -> None:
    pinned = away("one", "AAA", "BBB", always_pinned=True)
    directory = await start(pinned, Lists("two", "BBB"), quick_s=0.1)
    # Nobody waits for its list, and it is asked for nothing because of a name alone.
    assert await until_settled(directory, None, "BBB") == ("two", "BBB@1m", "BBB")
    asked = pinned.asked
    await directory.settled(None, "AAA", ["me"])
    assert refusal(directory, None, "AAA").code == "unknown_symbol"
    assert pinned.asked == asked
    pinned.error = None
    directory.ask_anew("one")
    await eventually(lambda: directory.standing("one", "AAA") == "trading")
    assert found(directory.resolve("one", "AAA", "1m")) == ("one", "AAA@1m", "one:AAA")
    assert "did you mean one:AAA?" in refusal(directory, None, "AAA").message


async def test_a_list_that_hangs_later_holds_up_nobody_who_wants_all(start: Start) -> None:
    pinned = away("one", "AAA", always_pinned=True)
    directory = await start(pinned, Lists("two", "BBB"), ttl_s=60.0, retry_s=(1.0, 900.0))
    await directory.lists_settled()
    pinned.may_answer.clear()
    await eventually(lambda: pinned.asked == 2)
    began = asyncio.get_running_loop().time()
    await directory.lists_settled()
    assert asyncio.get_running_loop().time() == began


async def test_what_is_always_pinned_needs_no_other_list(start: Start) -> None:
    hanging = Lists("one", "AAA")
    hanging.may_answer.clear()
    directory = await start(hanging, Lists("two", "AAA", always_pinned=True))
    await directory.lists_settled("two")
    assert directory.is_settled("two", "AAA")
    assert found(directory.resolve("two", "AAA", "1m")) == ("two", "AAA@1m", "two:AAA")


async def test_a_refusal_names_all_lists_that_are_missing_and_the_way_to_pin(start: Start) -> None:
    second = Lists("two", asset_class="forex")
    second.error = RateLimited("the credits are used up", 30.0)
    directory = await start(away("one"), second, Lists("three", "CCC"))
    await directory.lists_settled()
    fault = refusal(directory, None, "EUR/USD")
    assert fault.message == (
        "the symbol lists of One and Two are not loaded yet (cannot connect; the credits are used up), "
        "and no other list has 'EUR/USD'; to use another provider, write PROVIDER:SYMBOL"
    )
    pinned = refusal(directory, "two", "EUR/USD")
    assert pinned.message == "the symbol list of Two is not loaded yet (the credits are used up)"


async def test_a_refusal_without_any_list_names_no_other_one(start: Start) -> None:
    directory = await start(away("one"), away("two"))
    await directory.lists_settled()
    said = "the symbol lists of One and Two are not loaded yet (cannot connect)"
    assert refusal(directory, None, "EUR/USD").message == said


async def test_three_missing_lists_are_named_as_a_sentence_does(start: Start) -> None:
    directory = await start(away("one"), away("two"), away("three"))
    await directory.lists_settled()
    said = "the symbol lists of One, Two and Three are not loaded yet (cannot connect)"
    assert refusal(directory, None, "EUR/USD").message == said


async def test_a_provider_without_its_key_does_not_stand_in_the_way_of_others(start: Start) -> None:
    locked = away("one")
    locked.needs_key = "key"
    directory = await start(locked, Lists("two", "BBB"))
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m")) == ("two", "BBB@1m", "BBB")


# -- a list of one moment --------------------------------------------------------------------------


async def test_an_unknown_symbol_has_the_list_asked_for_once_for_all_who_want_it(start: Start) -> None:
    lists = Lists("one", "AAA")
    directory = await start(lists, ttl_s=360.0)
    await directory.lists_settled()
    # What was asked for a moment ago is not asked for again.
    await directory.settled(None, "BBB", ["me"])
    assert lists.asked == 1
    assert refusal(directory, None, "BBB").code == "unknown_symbol"
    lists.symbols = ("AAA", "BBB")
    lists.may_answer.clear()
    while lists.asked == 1:
        first = asyncio.create_task(directory.settled(None, "BBB", ["me"]))
        await asyncio.sleep(0.02)
    waiting = [first, *(asyncio.create_task(directory.settled(pin, "BBB", ["me"])) for pin in (None, "one"))]
    await asyncio.wait(waiting, timeout=0.02)
    assert not any(one.done() for one in waiting)
    lists.may_answer.set()
    await asyncio.gather(*waiting)
    assert found(directory.resolve(None, "BBB", "1m")) == ("one", "BBB@1m", "BBB")
    assert lists.asked == 2


async def test_symbols_that_nobody_lists_are_asked_about_ever_more_rarely(start: Start) -> None:
    lists = Lists("one", "AAA")
    directory = await start(lists, ttl_s=36.0)
    await directory.lists_settled()
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 2.0:
        await directory.settled(None, "NOPE", ["me"])
        await asyncio.sleep(0.005)
    # After 0.05 s, 0.1 s, 0.2 s and so on.
    assert 3 <= lists.asked <= 7


async def test_a_maintenance_list_neither_ends_symbols_nor_replaces_what_is_remembered(
    start: Start, store: Store
) -> None:
    symbols = [f"T{number:02d}" for number in range(20)]
    lists = Lists("one", *symbols)
    directory = await start(lists)
    await directory.lists_settled()
    lists.symbols = ("123456",)
    await eventually(lambda: lists.asked > 8)
    assert found(directory.resolve(None, "T07", "1m"))[0] == "one"
    assert len([*directory.everything()]) == 21
    document = await store.documents.get("instruments:one")
    assert document is not None
    assert len(orjson.loads(document.body)) == 21


async def test_what_is_paused_is_listed_as_such(start: Start) -> None:
    lists = Lists("one", "AAA", "BBB")
    lists.paused = {"BBB"}
    directory = await start(lists)
    await directory.lists_settled()
    assert found(directory.resolve(None, "BBB", "1m"))[0] == "one"
    assert [one.instrument.status for one in [*directory.everything()]] == ["trading", "paused"]
    assert directory.standing("one", "BBB") == "paused"
    assert directory.standing("nobody", "BBB") == "unknown"
    lists.paused = set()
    await eventually(lambda: directory.standing("one", "BBB") == "trading")


async def test_a_first_list_that_is_too_short_leaves_open_what_it_lacks(start: Start) -> None:
    lists = Lists("one")
    directory = await start(lists, Lists("two", "BBB"))
    await directory.lists_settled()
    fault = refusal(directory, None, "BBB")
    assert fault.code == "provider_unavailable"
    assert "(it has 0 entries, fewer than 1); to use Two, write two:BBB" in fault.message
    lists.symbols = ("AAA",)
    await eventually(lambda: directory.problem("one") is None)
    assert found(directory.resolve(None, "BBB", "1m"))[0] == "two"
