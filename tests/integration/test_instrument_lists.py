"""The lists of symbols and instruments: made once for each state of the directory, and never for long at a time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Instrument, ProviderInfo, hookimpl
from relay.app import DIRECTORY
from relay.instruments.directory import Directory
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


class Calls:
    """Notes how often a symbol is named, and how many in one round of the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.most_in_a_round = 0
        self._in_this_round = 0
        real = Directory.name_of

        def note(directory: Directory, *what: Any) -> str:
            if not self._in_this_round:
                asyncio.get_running_loop().call_soon(self._end_round)
            self.count += 1
            self._in_this_round += 1
            return real(directory, *what)

        monkeypatch.setattr(Directory, "name_of", note)

    def _end_round(self) -> None:
        self.most_in_a_round = max(self.most_in_a_round, self._in_this_round)
        self._in_this_round = 0


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
        "symbol": "many:BTCUSDT", "provider": "many", "asset_class": "stocks", "base": "BTCUSDT", "quote": "USD",
        "intervals": ["1m", "1h"], "status": "trading", "attribution": stocks[0]["attribution"],
    }  # fmt: skip


async def test_list_is_made_once_and_a_little_at_a_time_however_many_ask(
    relay: Running, many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    asked = ("symbols", "instruments", "instruments?asset_class=stocks", "symbols?asset_class=stocks")
    answers = await asyncio.gather(*(relay.get(path) for path in asked * 4))
    assert {answer.status for answer in answers} == {200}
    known = sum(1 for _ in relay.app[DIRECTORY].everything())
    assert COUNT < calls.count == known
    assert calls.most_in_a_round <= 200
    # Others that asked for the same list meanwhile, and the same list that came again, change nothing.
    version = relay.app[DIRECTORY].version
    relay.app[DIRECTORY].ask_anew("many")
    await eventually(lambda: many.asked == 2)
    assert (await relay.get("symbols")).status == 200
    assert (calls.count, relay.app[DIRECTORY].version) == (known, version)


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
