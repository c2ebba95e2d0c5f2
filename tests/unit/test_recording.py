"""What a replay is made of: the recording that flags name, where it begins, and what is known of its instruments."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from relay.commands.recording import bounds_of, instruments_of, open_recording, start_of
from relay.core.clock import Clock
from relay.core.errors import ConfigError
from relay.core.model import Instrument, StreamKey
from relay.core.spans import Span
from relay.core.written_numbers import written_candle
from relay.instruments.saved_list import rows_of
from relay.storage.recorded_candles import RecordedCandles, take_in
from relay.storage.store import Store
from tests.support.recordings import START, walk, write_csv

BTC, ETH = StreamKey("BTCUSDT", "1m"), StreamKey("ETHUSDT", "1h")


@pytest.fixture
def recording() -> RecordedCandles:
    rows = [("binance", BTC, one) for one in walk(10)] + [("other", ETH, one) for one in walk(2, "1h")]
    return take_in(rows, "files")


def test_it_reaches_from_the_first_open_to_the_last_close_of_all_streams(recording: RecordedCandles) -> None:
    assert bounds_of(recording) == (START, START + 7200)
    assert start_of(recording, None) == start_of(recording, START) == START
    assert start_of(recording, START + 7199) == START + 7199


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        (START - 1, "--from 2024-11-23T23:59:59Z is before the recording begins"),
        (START + 7200, "--from 2024-11-24T02:00:00Z is after the recording ends"),
    ],
)
def test_a_beginning_elsewhere_is_refused_with_the_bounds(
    recording: RecordedCandles, wanted: int, where: str
) -> None:  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        start_of(recording, wanted)
    assert str(caught.value) == f"{where}; it has candles from 2024-11-24T00:00:00Z to 2024-11-24T02:00:00Z"


async def test_a_database_tells_its_instruments_too(tmp_path: Path) -> None:
    known = Instrument("BTCUSDT", "crypto", "BTC", "USDT", ("1m",), price_step="0.01", extras={"filters": [1]})
    other = known._replace(symbol="NOTUSDT")
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("binance", BTC, walk(3), Span(START, START + 121))
    await store.add("broken", BTC, walk(3), Span(START, START + 121))
    await store.documents.put("instruments:binance", rows_of([known, other]))
    await store.documents.put("instruments:broken", b'[["BTCUSDT"')
    await store.close()
    with closing(open_recording([str(tmp_path / "relay.db")])) as recording:
        found = instruments_of(recording, "binance")
        assert [*found] == ["BTCUSDT"]
        assert (found["BTCUSDT"].price_step, found["BTCUSDT"].asset_class) == ("0.01", "crypto")
        assert instruments_of(recording, "broken") == {}


async def test_extras_are_known_where_candles_have_the_texts_of_their_provider(tmp_path: Path) -> None:
    texts = ("1.50", "2.50", "1.00", "2.00", "7.0", "14.0", "3.0", "6.0")
    written = [written_candle(START + 60 * number, texts, trades=9) for number in range(3)]
    extras = {"exchange_info": {"filters": [1]}}
    known = [Instrument(key.symbol, "crypto", key.symbol, "USDT", extras=extras) for key in (BTC, ETH)]
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("binance", BTC, written, Span(START, START + 121))
    await store.add("binance", ETH, walk(2, "1h", extended=True), Span(START, START + 3601))
    await store.documents.put("instruments:binance", rows_of(known))
    await store.close()
    with closing(open_recording([str(tmp_path / "relay.db")])) as recording:
        found = instruments_of(recording, "binance")
    assert (found["BTCUSDT"].extras, found["ETHUSDT"].extras) == (extras, None)


def test_files_are_put_together_and_know_no_instruments(tmp_path: Path) -> None:
    files = [write_csv(tmp_path / f"{number}.csv", walk(3, seed=number)) for number in (1, 2)]
    with closing(open_recording([f"binance:A@1m={files[0]}", f"B@1m={files[1]}"])) as recording:
        assert {name: [*streams] for name, streams in recording.streams.items()} == {
            "binance": [StreamKey("A", "1m")],
            "replay": [StreamKey("B", "1m")],
        }
        assert instruments_of(recording, "binance") == {}


def test_one_database_is_a_recording_and_an_empty_one_is_none(tmp_path: Path) -> None:
    database, file = tmp_path / "relay.db", write_csv(tmp_path / "week.csv", walk(3))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE a (b)")
    with pytest.raises(ConfigError, match="--replay takes one database, or one or more files; name the database alone"):
        open_recording([str(database), f"A@1m={file}"])
    with pytest.raises(ConfigError, match=r"head.csv: there are no candles in it"):
        open_recording([f"A@1m={write_csv(tmp_path / 'head.csv', [])}"])
