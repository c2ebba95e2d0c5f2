"""Recorded candles: read page by page from a relay's database of any version, and from what was taken in."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay.core.clock import Clock
from relay.core.errors import ProviderUnavailable, StoreError
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.core.written_numbers import written_candle, written_texts
from relay.storage.recorded_candles import RecordedCandles, open_recorded, take_in
from relay.storage.schema import MIGRATIONS
from relay.storage.store import Store
from tests.support.recordings import START, walk
from tests.unit.test_schema import BTC, CANDLES, EUR, FILES

KEY = StreamKey("BTCUSDT", "1m")


async def every(recording: RecordedCandles, provider: str = "binance", key: StreamKey = KEY) -> list[Candle]:
    return [*await recording.read(provider, key, 0, 1 << 40, 1 << 20)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_files_of_earlier_versions_are_read_and_stay_as_they_are(file: Path, tmp_path: Path) -> None:
    path, script = tmp_path / "relay.db", file.read_text(encoding="utf-8")  # noqa: ASYNC240 - nobody waits
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    before = path.read_bytes()
    with closing(open_recorded(str(path))) as recording:
        assert await every(recording, "binance", BTC) == CANDLES
        assert EUR in recording.streams["twelve_data"]
    assert path.read_bytes() == before


async def test_a_relay_goes_on_writing_and_what_it_adds_is_left_out(tmp_path: Path) -> None:
    path, candles = tmp_path / "relay.db", walk(30, extended=True)
    store = await Store.open(path, Clock())
    try:
        await store.add("binance", KEY, candles[:20], Span(START, candles[19].time + 1))
        with closing(open_recorded(str(path))) as recording:
            await store.add("binance", KEY, candles[20:], Span(candles[19].time + 1, candles[29].time + 1))
            found = await every(recording)
            assert found == candles[:20]
            assert [one.extras for one in found] == [one.extras for one in candles[:20]]
            # No reader keeps its log from being shortened.
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    finally:
        await store.close()


async def test_a_file_that_can_only_be_read_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, walk(3), Span(START, START + 121))
    await store.close()
    path.chmod(0o400)
    with closing(open_recorded(str(path))) as recording:
        assert await every(recording) == walk(3)


async def test_what_the_provider_wrote_is_kept_and_names_set_aside_are_left_out(tmp_path: Path) -> None:
    texts = ("1.50000000", "2.00000000", "1.00000000", "1.75000000", "3.1", "4.20", "1", "2")
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("binance", KEY, [written_candle(START, texts, 7)], Span(START, START + 1))
    await store.add("binance", StreamKey("LUNAUSDT~20221101T000000Z", "1m"), walk(1), Span(START, START + 1))
    await store.documents.put("instruments:binance", b"[]")
    await store.close()
    with closing(open_recorded(str(tmp_path / "relay.db"))) as recording:
        assert [*recording.streams["binance"]] == [KEY]
        assert [written_texts(one) for one in await every(recording)] == [texts]
        assert recording.document("instruments:binance") == b"[]"
        assert recording.document("instruments:other") is None


async def test_pages_are_the_first_or_the_last() -> None:
    candles = walk(10)
    with closing(take_in([("binance", KEY, one) for one in candles], "files")) as recording:
        assert await recording.read("binance", KEY, START + 120, START + 360, 3) == candles[2:5]
        assert await recording.read("binance", KEY, None, START + 360, 3) == candles[3:6]
        assert await recording.read("binance", KEY, START + 600, 1 << 40, 3) == []
        assert recording.streams["binance"][KEY] == (START, START + 540)


async def test_streams_that_are_taken_in_together_stay_apart() -> None:
    one, other = walk(5, extended=True), walk(5, seed=2)
    rows = [(name, key, row) for name, key, rows in (("a", KEY, one), ("b", KEY, other)) for row in rows]
    with closing(take_in(rows, "files")) as recording:
        found = await every(recording, "a")
        assert found == one
        assert [row.extras for row in found] == [row.extras for row in one]
        assert await every(recording, "b") == other
        assert recording.document("instruments:a") is None


def test_nothing_is_taken_in_of_what_fails() -> None:
    def rows() -> object:
        yield ("a", KEY, walk(1)[0])
        raise ValueError("line 3")

    with pytest.raises(ValueError, match="line 3"):
        take_in(rows(), "files")  # type: ignore[arg-type]


async def test_other_files_are_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such file"):
        open_recorded(str(tmp_path / "none.db"))
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE streams (id)")
    with pytest.raises(StoreError, match=r"other.db: is not a database of a relay"):
        open_recorded(str(path))
    await (await Store.open(tmp_path / "relay.db", Clock())).close()
    with closing(sqlite3.connect(tmp_path / "relay.db")) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="upgrade the relay"):
        open_recorded(str(tmp_path / "relay.db"))


async def test_a_file_that_is_damaged_later_is_an_answer_of_the_provider(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, walk(3000), Span(START, START + 180_000))
    await store.close()
    with closing(open_recorded(str(path))) as recording:
        path.write_bytes(path.read_bytes()[:4096] + b"\x07" * 4096 * 20)
        with pytest.raises(ProviderUnavailable, match=r"^the recording cannot be read: the file is damaged$"):
            await every(recording)
