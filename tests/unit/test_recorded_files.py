"""Files of recorded candles: as `relay history` writes them; what is wrong is named with its line."""

import gzip
import io
from pathlib import Path

import orjson
import pytest

from relay.client import History
from relay.commands.candle_writer import CandleWriter
from relay.commands.recorded_files import RecordedFile, candles_of, recorded_file
from relay.core.errors import ConfigError
from relay.core.model import Candle, StreamKey
from tests.support.recordings import START, walk, write_csv

KEY = StreamKey("BTCUSDT", "1m")
HEAD = "time,open,high,low,close,volume"
ROW = f"{START},1,2,0.5,1.5,3"
NAMED = f"{HEAD},symbol,interval"


def read(path: Path, key: StreamKey | None = KEY) -> list[tuple[str, StreamKey, Candle]]:
    return [*candles_of([RecordedFile(path, "replay", key)])]


def fault_of(path: Path, text: str | bytes, key: StreamKey | None = KEY) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read(path, key)
    return str(caught.value).replace(str(path), "FILE")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "week.csv"


# -- what is taken ---------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True])
def test_csv_is_taken_as_it_is_written(path: Path, extended: bool) -> None:
    candles = walk(20, extended=True)
    write_csv(path, candles, extended=extended)
    found = read(path)
    assert found == [("replay", KEY, candle) for candle in candles]
    assert [one.extras for _, _, one in found] == [candle.extras if extended else None for candle in candles]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
@pytest.mark.parametrize("extended", [False, True])
def test_what_the_command_writes_is_read_without_the_open_candle(path: Path, form: str, extended: bool) -> None:
    candles = walk(5, extended=True)
    file = io.BytesIO()
    rows = candles if extended else [Candle(*one) for one in candles]
    page = History("BTCUSDT", "1m", tuple(rows), False, {"provider": "binance"})
    writer = CandleWriter(file, form, extended=extended)
    writer.write(page)
    writer.close()
    path.write_bytes(file.getvalue())
    assert [one for _, _, one in read(path)] == candles[:-1]
    assert [one.trades for _, _, one in read(path)] == [one.trades if extended else None for one in candles[:-1]]


def test_several_streams_in_one_file_and_in_several(path: Path, tmp_path: Path) -> None:
    path.write_text(
        f"{NAMED},provider\n{ROW},btcusdt,1H,binance\n{ROW},EUR/USD,1m,\n{START + 60},1,1,1,1,,EUR/USD,1m,\n"
    )
    other = write_csv(tmp_path / "other.csv", walk(1))
    files = [RecordedFile(path), recorded_file(f"binance:ETHUSDT@1m={other}")]
    assert [(provider, str(key), one.time) for provider, key, one in candles_of(files)] == [
        ("binance", "BTCUSDT@1h", START),
        ("replay", "EUR/USD@1m", START),
        ("replay", "EUR/USD@1m", START + 60),
        ("binance", "ETHUSDT@1m", START),
    ]


def test_ndjson_names_its_streams_too(path: Path) -> None:
    row = {
        "symbol": "ETHUSDT",
        "interval": "1m",
        "time": START,
        "open": 1,
        "high": 2,
        "low": 1,
        "close": 2,
        "volume": 3.5,
    }
    path.write_bytes(orjson.dumps(row) + b"\n\n")
    assert read(path, None) == [("replay", StreamKey("ETHUSDT", "1m"), Candle(START, 1, 2, 1, 2, 3.5))]


def test_compressed_files_are_taken_and_so_are_marks_and_line_ends_of_other_systems(path: Path) -> None:
    path.write_bytes(gzip.compress(f"{HEAD}\n{ROW}\n".encode()))
    assert len(read(path)) == 1
    path.write_bytes(f"\ufeff{HEAD}\r\n{ROW}\r\n\r\n".encode())
    assert len(read(path)) == 1


@pytest.mark.parametrize(
    ("text", "provider", "stream", "file"),
    [
        ("week.csv", "replay", None, "week.csv"),
        ("btcusdt@1H=a=b.csv", "replay", "BTCUSDT@1h", "a=b.csv"),
        ("binance:BTCUSDT@1m=/x/week.csv", "binance", "BTCUSDT@1m", "/x/week.csv"),
        ("ES=F@1d=week.csv", "replay", "ES=F@1d", "week.csv"),
        ("BTC/USDT:USDT@1m=week.csv", "replay", "BTC/USDT:USDT@1m", "week.csv"),
        ("okx:BTC/USDT:USDT@1m=week.csv", "okx", "BTC/USDT:USDT@1m", "week.csv"),
    ],
)
def test_a_flag_names_a_file_or_a_stream_and_its_file(text: str, provider: str, stream: str | None, file: str) -> None:
    found = recorded_file(text)
    assert (found.provider, found.key and str(found.key), str(found.path)) == (provider, stream, file)


def test_a_file_may_be_called_like_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("A@1m=b.csv").write_text(HEAD)
    assert recorded_file("A@1m=b.csv").path == Path("A@1m=b.csv")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "FILE is empty; it needs a line time,open,high,low,close,volume and a candle in each line below"),
        (ROW, f"line 1: '{ROW}' names no columns; begin with a line {HEAD}"),
        ("time,open,high,low\n", "line 1: there is no column close; begin with"),
        (f"{HEAD},vol\n", "line 1: the column 'vol' is not known; columns are time, open, high, low, close, volume,"),
        (f"{HEAD},open\n", "line 1: the column open is there twice"),
        (f"{HEAD}\n{ROW},5\n", "line 2: has 7 values for 6 columns"),
        (f"{HEAD}\n{ROW}\n{START + 60},1,x,0.5,1.5,3\n", "line 3: high 'x' is not a number"),
        (f"{HEAD}\n{START},1,,0.5,1.5,3\n", "line 2: high '' is not a number"),
        (f"{HEAD}\n{START},1,1_0,0.5,1.5,3\n", "line 2: high '1_0' is not a number"),
        (f"{HEAD}\n{'9' * 5000},1,2,0.5,1.5,3\n", "line 2: time '9999"),
        (f'{{"time":{START},"open":true,"high":1,"low":1,"close":1}}\n', "line 1: open true is not a number"),
        (f"{HEAD}\n2024-11-24,1,2,0.5,1.5,3\n", "line 2: time '2024-11-24' is not an open time in whole Unix seconds"),
        (f"{HEAD}\n{START}000,1,2,0.5,1.5,3\n", f"time {START}000 is in milliseconds; write Unix seconds, {START}"),
        (f"{HEAD}\n{START + 1},1,2,0.5,1.5,3\n", "is not an open time of 1m: it is not a multiple of 60 s"),
        (f"{HEAD}\n{START},1,2,1.2,1.5,3\n", "line 2: open or close lies outside low and high (time"),
        (f"{HEAD}\n{START},1,nan,0.5,1.5,3\n", "line 2: a value is not a finite number"),
        (f"{HEAD}\n{START},1,2,0.5,1.5,-3\n", "line 2: volume or time is negative"),
        (f"{HEAD},trades\n{ROW},1.5\n", "line 2: trades 1.5 is not a whole number"),
        (f"{HEAD},quote_volume\n{ROW},-1\n", "line 2: quote_volume is -1.0, not a finite number of 0 or more"),
        (f"{HEAD}\n{ROW}\n{ROW}\n", f"line 3: the candle of BTCUSDT@1m with the time {START} is there twice"),
        (f"{HEAD}\n{ROW}\n{START - 60},1,2,0.5,1.5,3\n", f"time {START - 60} comes after the one of {START}; each"),
        (f"{NAMED}\n{ROW},ETHUSDT,1m\n", "line 2: the candle is of ETHUSDT@1m; --replay says that the file is of BTC"),
        (f'{{"time":{START}}}\n', "line 1: open null is not a number"),
        (f'{{"time":{START}\n', f"line 1: '{{\"time\":{START}' is not one JSON object"),
        ("[1]\n", "line 1: '[1]' names no columns"),
        (b"\x1f\x8b\x08\x00broken", "FILE cannot be read to its end"),
        (gzip.compress(f"{HEAD}\n{ROW}\n".encode(), mtime=0)[:-9], "FILE cannot be read to its end"),
        (b"\xff\xfe\x00\x01", "FILE is not a text; name a CSV or NDJSON file, or the database of a relay"),
        (f"{HEAD}\n{ROW}".encode() + b"\x00\xff", "FILE is not a text"),
    ],
)
def test_a_fault_is_named_with_its_line_and_its_value(path: Path, text: str | bytes, fault: str) -> None:
    assert fault in fault_of(path, text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"{HEAD}\n{ROW}\n", "line 2: it is not said of which stream the candle is; write --replay BTCUSDT@1m=FILE"),
        (f"{HEAD},symbol\n{ROW},BTCUSDT\n", "line 2: it is not said of which stream"),
        (f"{NAMED}\n{ROW},BTC USDT,1m\n", "line 2: 'BTC USDT' is not a symbol; it has at most 48"),
        (f"{NAMED}\n{ROW},BTCUSDT,7m\n", "line 2: unknown interval '7m'; use one of 1s 1m"),
        (f"{NAMED},provider\n{ROW},BTCUSDT,1m,My Bank\n", "line 2: provider 'My Bank' is not a name"),
    ],
)
def test_a_file_has_to_say_which_streams_are_in_it(path: Path, text: str, fault: str) -> None:
    assert fault in fault_of(path, text, None)


@pytest.mark.parametrize("text", ["BTC USDT@1m=x.csv", "BTCUSDT@9m=x.csv"])
def test_a_flag_with_a_wrong_stream_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--replay '{text}': ('BTC USDT' is not a symbol|unknown interval '9m')"):
        recorded_file(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--replay \S+none.csv: there is no such file; name a CSV or NDJSON file"):
        _ = RecordedFile(tmp_path / "none.csv").is_database
    with pytest.raises(ConfigError, match="Is a directory"):
        _ = RecordedFile(tmp_path).is_database
