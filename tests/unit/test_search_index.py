"""What a search finds and in which order, in turns that are short however much there is."""

import pytest

from relay.core.model import Instrument
from relay.instruments.search_index import ROWS_OF_BLOCK, WORK_OF_TURN, SearchIndex


def of(symbol: str, base: str, quote: str, name: str | None = None, status: str = "trading") -> Instrument:
    return Instrument(symbol, "any", base, quote, status=status, name=name)


MARKET = [
    of("AAPL", "AAPL", "USD", "Apple Inc."),
    of("APLE", "APLE", "USD", "Apple Hospitality REIT"),
    of("BRK.B", "BRK", "USD", "Berkshire Hathaway Inc. Class B"),
    of("BTC/USDT:USDT", "BTC", "USDT"),
    of("BTCAUD", "BTC", "AUD"),
    of("BTCBUSD", "BTC", "BUSD", status="paused"),
    of("BTCSTUSDT", "BTCST", "USDT"),
    of("BTCUSDC", "BTC", "USDC"),
    of("BTCUSDT", "BTC", "USDT"),
    of("ES=F", "ES", "USD", "E-mini S&P 500"),
    of("EUR/USD", "EUR", "USD", "Euro / US Dollar"),
    of("M&M.NS", "M&M", "INR", "Mahindra & Mahindra"),
    of("MAPLEUSDT", "MAPLE", "USDT"),
    of("NQ1!", "NQ", "USD"),
    of("WBTCBTC", "WBTC", "BTC"),
    of("^GSPC", "GSPC", "USD", "S&P 500"),
    of("币安人生USDT", "币安人生", "USDT"),
    of("ÅSTR", "ÅSTR", "SEK", "Åström Ström"),
]


@pytest.fixture(scope="module")
def index() -> SearchIndex:
    return SearchIndex(MARKET, lambda: None)


async def found(index: SearchIndex, query: str, limit: int = 100) -> list[str]:
    return [MARKET[number].symbol for number in await index.find(query, limit)]


@pytest.mark.parametrize(
    ("query", "symbols"),
    [
        # The exact symbol, with and without its signs, in any case.
        ("btcusdt", ["BTCUSDT", "BTC/USDT:USDT"]),
        ("EURUSD", ["EUR/USD"]),
        ("eur/usd", ["EUR/USD"]),
        ("^gspc", ["^GSPC"]),
        ("gspc", ["^GSPC"]),
        ("m&m.ns", ["M&M.NS"]),
        ("nq1!", ["NQ1!"]),
        ("brk.b", ["BRK.B"]),
        ("btc/usdt:usdt", ["BTC/USDT:USDT"]),
        ("币安", ["币安人生USDT"]),
        ("åström", ["ÅSTR"]),
        ("ÅSTR", ["ÅSTR"]),
        # What begins so, with the currencies first that people mean, then the shorter, what is paused last; then parts.
        (
            "btc",
            ["BTCUSDT", "BTCSTUSDT", "BTC/USDT:USDT", "BTCUSDC", "BTCAUD", "BTCBUSD", "WBTCBTC"],
        ),
        # A symbol that begins so, then parts of symbols.
        ("apl", ["APLE", "MAPLEUSDT", "AAPL"]),
        ("apple", ["AAPL", "APLE"]),
        ("inc", ["AAPL", "BRK.B"]),
        ("hosp", ["APLE"]),
        ("s&p", ["ES=F", "^GSPC"]),
        ("500", ["ES=F", "^GSPC"]),
        # All words, in any order, and parts of them.
        ("class berkshire", ["BRK.B"]),
        ("500 mini", ["ES=F"]),
        ("btc usdc", ["BTCUSDC"]),
        ("usdt btc", ["BTCUSDT", "BTC/USDT:USDT", "BTCSTUSDT"]),
        ("apple nothing", []),
        # What people call currencies.
        ("bitcoin usdc", ["BTCUSDC"]),
        ("euro", ["EUR/USD"]),
        ("nothing", []),
        ("", []),
        ("\x01", []),
        ("/", ["EUR/USD", "BTC/USDT:USDT"]),
    ],
)
async def test_the_best_hits_come_first(index: SearchIndex, query: str, symbols: list[str]) -> None:
    hits = await found(index, query)
    assert hits[: len(symbols)] == symbols
    if len(symbols) != 1:
        assert hits == symbols


async def test_a_limit_leaves_the_best(index: SearchIndex) -> None:
    assert await found(index, "btc", 2) == ["BTCUSDT", "BTCSTUSDT"]


async def test_only_what_is_wanted_is_found(index: SearchIndex) -> None:
    hits = await index.find("btc", 1, lambda number: MARKET[number].quote == "AUD")
    assert [MARKET[number].symbol for number in hits] == ["BTCAUD"]


@pytest.fixture(scope="module")
def many() -> list[Instrument]:
    return [of(f"S{number:05d}USD", f"S{number:05d}", "USD", f"Company {number} plc") for number in range(40_000)]


class Meter:
    """Measures the most instruments between two turns."""

    def __init__(self) -> None:
        self.turns = 0

    async def turn(self) -> None:
        self.turns += 1

    def give_way(self) -> None:
        self.turns += 1


async def test_a_search_of_many_takes_its_work_in_turns(many: list[Instrument]) -> None:
    making = Meter()
    index = SearchIndex(many, making.give_way)
    assert making.turns >= 2 * len(many) // ROWS_OF_BLOCK
    blocks = len(many) // ROWS_OF_BLOCK
    nothing, everything, words = Meter(), Meter(), Meter()
    assert await index.find("zzz", 100, turn=nothing.turn) == []
    # Six forms are looked for in each block, and each scan of one counts as ten hits.
    assert nothing.turns >= 6 * (blocks * 10 // WORK_OF_TURN)
    rejected = 0

    def reject(_: int) -> bool:
        nonlocal rejected
        rejected += 1
        return False

    assert await index.find("company", 100, reject, turn=everything.turn) == []
    assert rejected >= len(many)
    assert everything.turns >= rejected // WORK_OF_TURN
    assert await index.find("company zzz", 100, turn=words.turn) == []
    assert words.turns < everything.turns


async def test_what_is_called_by_its_symbol_alone_comes_before_the_same_of_another_provider() -> None:
    listed = [of("^GSPC", "GSPC", "USD") for _ in range(3)]
    index = SearchIndex(listed, lambda: None, ["acme:^GSPC", "bank:^GSPC", "^GSPC"])
    assert await index.find("^gspc", 2) == [2, 0]
    assert await index.find("gsp", 3) == [2, 0, 1]


async def test_enough_good_hits_end_a_search(many: list[Instrument]) -> None:
    looked = 0

    def look(_: int) -> bool:
        nonlocal looked
        looked += 1
        return True

    index = SearchIndex(many, lambda: None)
    assert len(await index.find("s", 100, look)) == 100
    assert looked == 100
    assert index.size < 100 * len(many)
