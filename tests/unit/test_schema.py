"""Files of earlier versions: brought up to date when a relay opens them, with everything that was in them."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, ExtendedCandle, StreamKey
from relay.core.spans import Span
from relay.storage.documents import Document
from relay.storage.inspect import overview, reading
from relay.storage.schema import MIGRATIONS, open_database
from relay.storage.store import Store
from relay.storage.verify import verify

# As the stores of these versions wrote them; never to be made anew by newer code.
FILES = sorted((Path(__file__).parents[1] / "data" / "store").glob("version-*.sql"))

BTC = StreamKey("BTCUSDT", "1m")
EUR = StreamKey("EUR/USD", "1h")
FIRST = 1_763_000_040
CANDLES = [
    *(Candle(FIRST + 60 * n, 100.5 + n, 103.25 + n, 99.125 + n, 101.1 + n, 0.5 * n) for n in range(100)),
    Candle(1_763_020_020, 1e-9, 1e9, 1e-9, 0.30000000000000004, 12345.678),
    Candle(1_763_020_080, 5.0, 6.0, 4.0, 5.5, 1.0),
]


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "relay.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(request.param.read_text(encoding="utf-8"))
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def test_there_is_a_file_of_each_earlier_version() -> None:
    assert [file.name for file in FILES] == [f"version-{number}.sql" for number in range(1, len(MIGRATIONS))]


async def test_everything_is_there_after_the_migration(path: Path) -> None:
    for _ in range(2):
        store = await Store.open(path, Clock())
        try:
            assert await store.read("binance", BTC, 0, 1 << 40) == CANDLES
            assert await store.spans("binance", BTC, 0, 1 << 40) == [
                Span(0, FIRST + 6000),
                Span(1_763_020_020, 1_763_020_081),
            ]
            assert await store.read("twelve_data", EUR, 0, 1 << 40) == [Candle(1_762_999_200, 1.1, 1.2, 1.0, 1.15, 0.0)]
            assert await store.spans("twelve_data", EUR, 0, 1 << 40) == [Span(1_762_990_000, 1_763_002_800)]
            assert await store.documents.get("symbols:binance") == Document(
                b'{"BTCUSDT":["BTC","USDT"]}', 1_764_000_000.25
            )
            assert (await store.streams_summary()).candles == 103
        finally:
            await store.close()
    assert version_of(path) == len(MIGRATIONS)
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time()).faults == []


async def test_of_relays_that_open_it_at_once_one_migrates_it(path: Path) -> None:
    opened = await asyncio.gather(*(Store.open(path, Clock()) for _ in range(4)), return_exceptions=True)
    (store,) = [one for one in opened if isinstance(one, Store)]
    try:
        assert {type(one) for one in opened} == {Store, StoreError}
        assert await store.read("binance", BTC, 0, 1 << 40) == CANDLES
    finally:
        await store.close()
    assert version_of(path) == len(MIGRATIONS)


def test_looking_at_it_changes_nothing(path: Path) -> None:
    before, version = path.read_bytes(), version_of(path)
    with reading(str(path)) as connection:
        found = overview(connection, str(path))
        assert verify(connection, found.streams, time.time()).faults == []
    assert found.version == version
    assert [stream.candles for stream in found.streams] == [102, 1]
    assert path.read_bytes() == before


async def test_candles_of_an_earlier_version_carry_nothing_until_somebody_gives_it(path: Path) -> None:
    store = await Store.open(path, Clock())
    given = [ExtendedCandle(*candle, quote_volume=2.0 * n, trades=n) for n, candle in enumerate(CANDLES)]
    try:
        assert all(candle.extras is None for candle in await store.read("binance", BTC, 0, 1 << 40, extended=True))
        store.put_extras("binance", BTC, given)
        await store.flush()
        found = await store.read("binance", BTC, 0, 1 << 40, extended=True)
        assert [(candle, candle.extras) for candle in found] == [(candle, candle.extras) for candle in given]
    finally:
        await store.close()
    with reading(str(path)) as connection:
        assert verify(connection, overview(connection, str(path)).streams, time.time()).faults == []


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"has schema version {len(MIGRATIONS) + 1}, this relay supports up to"):
        open_database(str(path), "relay.db")
    assert path.read_bytes() == before
