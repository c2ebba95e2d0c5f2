"""The lists of symbols and instruments: made once for each state of the directory, and never for long at a time."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from providers import BUILTIN
from relay import API_VERSION, Instrument, OpenHours, ProviderInfo, hookimpl
from relay.app import DIRECTORY
from relay.instruments.directory import Directory
from relay.web.http.instrument_lists import InstrumentLists, Selection
from relay.web.http.instrument_rows import InstrumentRows
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Running

COUNT = 3000


class Many:
    """Lists `COUNT` symbols in no order; the first of them is also somebody else's."""

    __name__ = "many"

    def __init__(self) -> None:
        self.asked = 0
        self.names = ["BTCUSDT", *(f"S{number * 7 % COUNT:04d}" for number in range(1, COUNT))]

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="many", api=API_VERSION, title="Many", asset_classes=("stocks",), intervals=("1m", "1h")
        )

    @hookimpl
    async def relay_stream(self) -> Any:
        await asyncio.Event().wait()
        yield

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        self.asked += 1
        return [Instrument(symbol=name, asset_class="stocks", base=name, quote="USD") for name in self.names]


@pytest.fixture
def many() -> Many:
    return Many()


@pytest.fixture
async def relay(relay_with: StartRelay, many: Many) -> Running:
    return await relay_with(builtin=(*BUILTIN, many))


class CountedRows(InstrumentRows):
    """Notes how often rows are made, where, and how many symbols are named before other threads may run."""

    made = 0
    most_at_a_time = 0
    threads: ClassVar[set[int]] = set()

    def __init__(self, directory: Directory) -> None:
        self.named = self._in_this_turn = 0
        real = directory.name_of

        def note(provider: Any, symbol: str) -> str:
            self.named += 1
            self._in_this_turn += 1
            CountedRows.most_at_a_time = max(CountedRows.most_at_a_time, self._in_this_turn)
            return real(provider, symbol)

        directory.name_of = note  # for as long as rows are made
        try:
            super().__init__(directory, self._note_turn)
        finally:
            directory.name_of = real
        CountedRows.made += 1
        CountedRows.threads.add(threading.get_ident())

    def _note_turn(self) -> None:
        self._in_this_turn = 0


async def test_lists_hold_everything_in_order(relay: Running, many: Many) -> None:
    await eventually(lambda: relay.app[DIRECTORY].standing("binance", "BTCUSDT") == "trading")
    symbols = (await relay.get("symbols", asset_class="stocks")).body
    # A bare symbol belongs to the first provider that lists it.
    assert symbols == sorted(["many:BTCUSDT", *many.names[1:]])
    rows = (await relay.get("instruments")).body
    assert [row["symbol"].rpartition(":")[2] for row in rows] == sorted(
        row["symbol"].rpartition(":")[2] for row in rows
    )
    assert len(rows) == len((await relay.get("symbols")).body)
    stocks = (await relay.get("instruments", asset_class="stocks")).body
    assert stocks == [row for row in rows if row["provider"] == "many"]
    assert stocks[0] == {
        "symbol": "many:BTCUSDT", "id": "many:BTCUSDT", "provider": "many", "name": None, "asset_class": "stocks",
        "base": "BTCUSDT", "quote": "USD", "intervals": ["1m", "1h"], "derived_intervals": [], "price_step": None,
        "volume_step": None, "session": "24x7", "status": "trading", "attribution": stocks[0]["attribution"],
    }  # fmt: skip


async def test_rows_are_made_once_in_a_thread_that_gives_way_however_many_ask(relay: Running, many: Many) -> None:
    await relay.get("symbols")
    lists = InstrumentLists(relay.app[DIRECTORY], CountedRows)
    wanted = [Selection(), Selection("stocks"), Selection("stocks", "many"), Selection(query="s", limit=9)]
    bodies = await asyncio.gather(*(lists.body(kind, one) for kind in ("symbols", "instruments") for one in wanted * 4))
    assert all(body.size for body in bodies)
    assert CountedRows.made == 1
    assert CountedRows.most_at_a_time <= 200
    assert threading.get_ident() not in CountedRows.threads
    # The same list that comes again changes nothing.
    version, asked = relay.app[DIRECTORY].version, many.asked
    relay.app[DIRECTORY].ask_anew("many")
    await eventually(lambda: many.asked > asked and relay.app[DIRECTORY].lists_taken > 2)
    assert (await lists.body("symbols", Selection())) is bodies[0]
    assert (CountedRows.made, relay.app[DIRECTORY].version) == (1, version)
    await lists.close()


async def test_lists_are_those_of_a_class_and_a_provider(relay: Running, many: Many) -> None:
    rows = (await relay.get("instruments")).body
    assert {row["provider"] for row in rows} == {"many", "binance", "twelve_data"}
    mine = (await relay.get("instruments", provider="many")).body
    assert mine == [row for row in rows if row["provider"] == "many"]
    assert (await relay.get("instruments", provider="many", limit=3)).body == mine[:3]
    assert (await relay.get("instruments", limit=5)).body == rows[:5]
    assert (await relay.get("instruments", provider="many", asset_class="crypto")).body == []
    forex = (await relay.get("instruments", asset_class="forex")).body
    assert forex == [row for row in rows if row["asset_class"] == "forex"]
    euro = next(row for row in forex if row["symbol"] == "EUR/USD")
    assert list(euro) == [
        "symbol", "id", "provider", "name", "asset_class", "base", "quote", "intervals", "derived_intervals",
        "price_step", "volume_step", "session", "status", "attribution",
    ]  # fmt: skip
    assert euro["id"] == "twelve_data:EUR/USD"
    # The relays of the tests poll at all times.
    assert (euro["name"], euro["session"]) == ("Euro / US Dollar", "24x7")
    assert (euro["price_step"], euro["derived_intervals"]) == (None, ["3m", "6h", "12h", "3d"])
    coin = next(row for row in rows if row["id"] == "binance:BTCUSDT")
    assert (coin["name"], coin["price_step"], coin["volume_step"], coin["session"]) == (None, "0.01", "0.00001", "24x7")


class Futures:
    """Says all that there is to say of one instrument, and little of another; it has hours."""

    __name__ = "futures"

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="futures", api=API_VERSION, title="Futures", asset_classes=("futures",), intervals=("1m",)
        )

    @hookimpl
    async def relay_stream(self) -> Any:
        await asyncio.Event().wait()
        yield

    @hookimpl
    def relay_hours(self) -> OpenHours | None:
        return None

    @hookimpl
    async def relay_instruments(self) -> Sequence[Instrument]:
        whole = Instrument(
            "esz6", "futures", "ES", "USD", name="E-mini S&P 500", price_step="0.250", volume_step="1.0",
            volume_unit="contracts", session="1700-1600 America/Chicago", listed_at=-5, expires_at=1_797_638_400,
            extras={"secret": "of a facade"},
        )  # fmt: skip
        return [whole, Instrument("NQZ6", "futures", "NQ", "USD")]


async def test_an_instrument_says_what_its_provider_does_and_no_extras(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Futures()))
    whole, bare = (await relay.get("instruments", provider="futures")).body
    assert whole == {
        "symbol": "ESZ6", "id": "futures:ESZ6", "provider": "futures", "name": "E-mini S&P 500",
        "asset_class": "futures", "base": "ES", "quote": "USD", "intervals": ["1m"], "derived_intervals": [],
        "price_step": "0.25", "volume_step": "1", "session": "1700-1600 America/Chicago", "status": "trading",
        "attribution": "", "volume_unit": "contracts", "listed_at": -5, "expires_at": 1_797_638_400,
    }  # fmt: skip
    # It has hours, and does not say them as a text.
    assert (bare["session"], bare["name"]) == (None, None)
    assert not {"volume_unit", "listed_at", "expires_at"} & bare.keys()


async def test_a_search_returns_the_best_hits_first(relay: Running, many: Many) -> None:
    async def hits(q: str, **more: Any) -> list[str]:
        return [row["id"] for row in (await relay.get("instruments", q=q, **more)).body]

    assert (await hits("btcusdt"))[:2] == ["binance:BTCUSDT", "many:BTCUSDT"]
    assert await hits("many:btcusdt") == ["many:BTCUSDT"]
    assert await hits("btcusdt", provider="many") == ["many:BTCUSDT"]
    assert (await hits("dollar yen"))[0] == "twelve_data:USD/JPY"
    assert await hits("japanese dollar") == ["twelve_data:USD/JPY"]
    assert await hits("bitcoin", asset_class="stocks") == []
    assert len(await hits("s")) == 100
    assert len(await hits("s", limit=2000)) == 2000
    assert await hits("s1", limit=2) == ["many:S1000", "many:S1001"]
    assert await hits("nothing at all") == []
    everything = (await relay.get("instruments")).body
    assert len((await relay.get("instruments?q=")).body) == len(everything)
    answer = await relay.get("instruments", q="usd")
    assert answer.headers["Content-Encoding"] == "gzip"
    again = await relay.get("instruments", q="usd", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("provider=kraken", "unknown provider 'kraken'; use one of binance, many, twelve_data"),
        ("provider=binanse", "did you mean binance?"),
        ("asset_class=stock", "unknown asset_class 'stock'"),
        ("limit=0", "limit '0' is not a whole number from 1 to 5000"),
        ("limit=many", "limit 'many' is not a whole number"),
        (f"q={'x' * 101}", "has 101 characters; use at most 100"),
        ("query=btc", "unknown parameter 'query'; known parameters are asset_class, provider, q, limit"),
    ],
)
async def test_what_cannot_be_asked_is_named(relay: Running, query: str, said: str) -> None:
    answer = await relay.get(f"instruments?{query}")
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert said in answer.body["detail"]


async def test_list_has_an_etag_and_is_compressed(relay: Running) -> None:
    for path in ("symbols", "instruments"):
        plain = await relay.get(path, headers={"Accept-Encoding": "identity"})
        packed = await relay.get(path)
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.body == plain.body
        assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"]) / 2
        for tag in (plain.headers["ETag"], packed.headers["ETag"]):
            assert (await relay.get(path, headers={"If-None-Match": tag})).status == 304


async def test_new_symbol_is_in_the_list_once_it_is_known(relay: Running, many: Many) -> None:
    before = await relay.get("symbols")
    assert "NEW" not in before.body
    many.names.append("NEW")
    version = relay.app[DIRECTORY].version
    relay.app[DIRECTORY].ask_anew("many")
    await eventually(lambda: relay.app[DIRECTORY].version > version)
    after = await relay.get("symbols", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status == 200
    assert "NEW" in after.body
