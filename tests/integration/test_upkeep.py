"""`relay store`: what the file holds, what is wrong with it, compared with the provider, also while a relay runs."""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.chunks import encode, pack
from relay.storage.inspect import overview, reading
from relay.storage.store import Store
from relay.storage.verify import Fault, verify
from tests.conftest import StartRelay
from tests.support.sandbox import Sandbox

START = 1_700_000_000 // 3600 * 3600
KEY = StreamKey("BTCUSDT", "1m")
HOUR = StreamKey("BTCUSDT", "1h")
LATER = float(START + 10 * 86_400)


def candle(time: int) -> Candle:
    return Candle(time, 2.0, 3.0, 1.0, 2.5, 10.0)


def minutes(first: int, last: int) -> list[Candle]:
    return [candle(START + 60 * number) for number in range(first, last)]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with 600 minutes and 10 hours of the same time, everything known, a hole of 20 minutes in the minutes."""
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, minutes(0, 300), Span(START, START + 18_000))
    await store.add("binance", KEY, minutes(320, 600), Span(START + 19_200, START + 36_000))
    hours = [candle(START + 3600 * number) for number in range(10)]
    await store.add("binance", HOUR, hours, Span(START, START + 36_000))
    await store.close()
    return path


@pytest.fixture
def change(path: Path) -> Callable[..., None]:
    """Changes the file behind the store's back."""

    def change(sql: str, *values: object) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            assert connection.execute(sql, values).rowcount, "the statement changed nothing"

    return change


def faults(path: Path, now: float = LATER) -> list[tuple[str, str, int]]:
    with reading(str(path)) as connection:
        found = verify(connection, overview(connection, str(path)).streams, now)
    return [fault[:3] for fault in found.faults]


@pytest.fixture
def store_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(path.parent)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["store", *words])

    return run


# What is in it


async def test_streams_spans_and_gaps_are_shown(path: Path) -> None:
    with reading(str(path)) as connection:
        found = overview(connection, str(path))
    assert [(str(one), one.candles, one.first, one.last) for one in found.streams] == [
        ("binance BTCUSDT@1m", 580, START, START + 35_940),
        ("binance BTCUSDT@1h", 10, START, START + 32_400),
    ]
    assert list(found.streams[0].spans) == [Span(START, START + 18_000), Span(START + 19_200, START + 36_000)]
    assert found.streams[0].gaps() == [Span(START + 18_000, START + 19_200)]
    assert found.streams[1].gaps() == []
    assert found.file_bytes >= 4096


async def test_time_in_which_no_candle_can_open_is_no_gap(path: Path) -> None:
    # Live candles of which each vouches for itself only.
    store = await Store.open(path, Clock())
    for number in (700, 701, 703):
        store.put_closed("binance", KEY, candle(START + 60 * number), None)
    await store.close()
    with reading(str(path)) as connection:
        gaps = overview(connection, str(path)).streams[0].gaps()
    assert gaps[1:] == [Span(START + 36_000, START + 42_000), Span(START + 42_061, START + 42_180)]


def test_command_prints_what_is_there(store_command: Callable[..., Result]) -> None:
    result = store_command()
    assert result.exit_code == 0
    head, _, _, *rows = result.output.splitlines()
    assert head.startswith("relay.db: ")
    assert head.endswith("schema version 5; 2 streams, 590 candles")
    assert [row.split() for row in rows] == [
        ["binance", "BTCUSDT@1m", "580", "2023-11-14T22:00:00Z", "2023-11-15T07:59:00Z", "2", "1"],
        ["binance", "BTCUSDT@1h", "10", "2023-11-14T22:00:00Z", "2023-11-15T07:00:00Z", "1", "0"],
        ["gap", "binance", "BTCUSDT@1m", "2023-11-15T03:00:00Z", "–", "2023-11-15T03:20:00Z"],
    ]


def test_command_prints_json(store_command: Callable[..., Result]) -> None:
    told = json.loads(store_command("--check", "--json").output)
    assert told["streams"][0]["gaps"] == [{"from": START + 18_000, "to": START + 19_200}]
    assert told["checked"] == {"candles": 590, "spans": 3, "encoded": 2, "faults": []}
    assert told["file_bytes"] > 0


def test_vacuum_gives_free_pages_back(
    store_command: Callable[..., Result], path: Path, change: Callable[..., None]
) -> None:
    change("INSERT INTO documents VALUES ('large', zeroblob(1000000), 0)")
    change("DELETE FROM documents WHERE name = 'large'")
    before = path.stat().st_size
    assert json.loads(store_command("--json").output)["free_bytes"] > 900_000
    result = store_command("--vacuum", "--check", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["free_bytes"] == 0
    assert path.stat().st_size < before - 900_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file; a relay creates it when it starts"),
        (b"", "is not a database of a relay; name another file"),
        (b"time,open\n" * 500, "it is not a database; move it away or name another file"),
    ],
)
def test_what_is_no_database_of_a_relay_exits_2(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    for option in ("--check", "--vacuum"):
        result = CliRunner().invoke(main, ["store", "--database", str(path), option])
        assert (result.exit_code, result.output) == (2, f"relay: database {path}: {said}\n")
    assert path.exists() == (content is not None)


def test_file_of_a_newer_relay_exits_2(store_command: Callable[..., Result], change: Callable[..., None]) -> None:
    with closing(sqlite3.connect("relay.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")
    result = store_command()
    assert result.exit_code == 2
    assert "schema version 99, this relay supports up to 5; upgrade the relay" in result.output


async def test_what_lies_in_the_future_is_taken_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    now = int(time.time()) // 60 * 60
    times = range(now - 3600, now - 600, 60)
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, [candle(at) for at in times], Span(times[0], now + 7200))
    await store.add("binance", HOUR, [candle(now + 7200)], Span(now + 7200, now + 7201))
    await store.close()
    found, repaired, again = (
        CliRunner().invoke(main, ["store", "--database", str(path), option])
        for option in ("--check", "--repair", "--check")
    )
    assert (found.exit_code, repaired.exit_code, again.exit_code) == (1, 0, 0)
    assert "a span ends in the future" in found.output
    assert "a candle lies in the future" in found.output
    assert "REPAIRED  binance BTCUSDT@1h: what lay in the future was deleted" in repaired.output
    with reading(str(path)) as connection:
        minutes_, _ = sorted(overview(connection, str(path)).streams, key=lambda stream: -stream.candles)
        assert (minutes_.candles, minutes_.spans) == (len(times), [Span(times[0], times[-1] + 1)])


async def test_a_relay_that_runs_is_not_disturbed(relay_with: StartRelay, tmp_path: Path) -> None:
    path = tmp_path / "running.db"
    relay = await relay_with(database=str(path))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "ETHUSDT@1s")
    await relay.get("history", symbol="BTCUSDT", interval="1m", limit=1000)
    for words in (["--check"], ["--vacuum"], ["--check"]):
        await client.update(is_closed=True)
        result = await asyncio.to_thread(CliRunner().invoke, main, ["store", "--database", str(path), *words])
        assert result.exit_code == 0, result.output
    assert "nothing wrong" in result.output
    await client.update(is_closed=True)
    ready = await relay.get("/readyz")
    assert ready.status == 200


# Forgetting


def stored_streams(path: Path) -> list[str]:
    with reading(str(path)) as connection:
        return [f"{stream} {stream.candles}" for stream in overview(connection, str(path)).streams]


@pytest.mark.parametrize(
    ("name", "left", "said"),
    [
        ("BTCUSDT@1m", ["binance BTCUSDT@1h 10"], "forgot binance BTCUSDT@1m: 580 candles, 2 spans"),
        ("binance:btcusdt@1H", ["binance BTCUSDT@1m 580"], "forgot binance BTCUSDT@1h: 10 candles, 1 span"),
        ("btcusdt", [], "forgot binance BTCUSDT@1h: 10 candles, 1 span"),
    ],
)
def test_symbol_is_forgotten(
    store_command: Callable[..., Result], path: Path, name: str, left: list[str], said: str
) -> None:
    result = store_command("--forget", name, "--check")
    assert result.exit_code == 0, result.output
    assert said in result.output.splitlines()
    assert "nothing wrong" in result.output
    assert stored_streams(path) == left


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("BTCUSD", "nothing is stored for 'BTCUSD'; did you mean BTCUSDT?"),
        ("other:BTCUSDT", "nothing is stored for 'other:BTCUSDT'; did you mean BTCUSDT or binance:BTCUSDT?"),
        ("XYZ", "nothing is stored for 'XYZ'; relay store lists what is stored"),
        ("BTCUSDT@5m", "'BTCUSDT' is not stored at 5m; it is at 1m 1h"),
        ("BTCUSDT@7m", "unknown interval '7m'"),
    ],
)
def test_name_that_nothing_is_stored_under_changes_nothing(
    store_command: Callable[..., Result], path: Path, name: str, said: str
) -> None:
    before = stored_streams(path)
    # Not even what a good name beside it means.
    result = store_command("--forget", "BTCUSDT@1m", "--forget", name)
    assert result.exit_code == 2
    assert said in result.output
    assert stored_streams(path) == before


async def test_symbol_of_two_providers_needs_a_pin(store_command: Callable[..., Result], path: Path) -> None:
    store = await Store.open(path, Clock())
    await store.add("other", KEY, minutes(0, 5), Span(START, START + 300))
    await store.close()
    result = store_command("--forget", "BTCUSDT")
    assert (result.exit_code, len(stored_streams(path))) == (2, 3)
    assert "write binance:BTCUSDT or other:BTCUSDT" in result.output
    assert store_command("--forget", "other:BTCUSDT").exit_code == 0
    assert len(stored_streams(path)) == 2


@pytest.mark.parametrize("words", [("--forget", "BTCUSDT"), ("--repair",)])
async def test_nothing_is_taken_out_while_a_relay_uses_the_file(
    store_command: Callable[..., Result], path: Path, words: Sequence[str]
) -> None:
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, [], Span(int(time.time()), int(time.time()) + 86_400))
    try:
        assert (await asyncio.to_thread(store_command)).exit_code == 0
        result = await asyncio.to_thread(store_command, *words)
    finally:
        await store.close()
    assert result.exit_code == 2
    assert f"the relay with process id {os.getpid()} uses it; stop it" in result.output
    assert len(stored_streams(path)) == 2


async def test_candles_that_were_set_aside_are_listed_and_can_be_forgotten(
    store_command: Callable[..., Result], path: Path
) -> None:
    store = await Store.open(path, Clock())
    assert await store.removals.set_aside("binance", "BTCUSDT", "BTCUSDT~20231120T000000Z") == 590
    await store.add("binance", KEY, minutes(0, 5), Span(START, START + 300))
    await store.close()
    result = store_command("--check")
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("aside")]
    assert line == (
        "aside  binance BTCUSDT~20231120T000000Z  set aside: BTCUSDT names another instrument now;"
        " to delete them: --forget BTCUSDT~20231120T000000Z"
    )
    told = json.loads(store_command("--json", "--forget", "BTCUSDT~20231120T000000Z").output)
    assert [one["candles"] for one in told["forgotten"]] == [580, 10]
    assert [(one["symbol"], one["set_aside_of"], one["candles"]) for one in told["streams"]] == [("BTCUSDT", None, 5)]


# What is wrong with it


def test_nothing_is_wrong_with_a_good_file(path: Path) -> None:
    assert faults(path) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            f'UPDATE spans SET "end" = {START + 20 * 86_400} WHERE stream_id = 2',
            ("binance BTCUSDT@1h", "a span ends in the future", 1),
        ),
        (
            f"UPDATE candles SET time = {START + 20 * 86_400} WHERE stream_id = 1 AND time = {START + 35_940}",
            ("binance BTCUSDT@1m", "a candle lies in the future", 1),
        ),
        (
            f'UPDATE spans SET "end" = {int(LATER) + 700} WHERE stream_id = 2',
            ("binance BTCUSDT@1h", "a span ends in the future", 1),
        ),
        (
            f"INSERT INTO spans VALUES (2, {START + 3600}, {START + 36_000})",
            ("binance BTCUSDT@1h", "a span begins before the one before it ends", 1),
        ),
        ("INSERT INTO spans VALUES (2, 500, 400)", ("binance BTCUSDT@1h", "a span is empty", 1)),
        (
            f"UPDATE candles SET high = 2.2 WHERE time = {START + 60}",
            ("binance BTCUSDT@1m", "open or close lies outside low and high", 1),
        ),
        (
            f"UPDATE candles SET volume = 9e999 WHERE time = {START + 7200} AND stream_id = 2",
            ("binance BTCUSDT@1h", "a value is not a finite number", 1),
        ),
        (
            f"UPDATE candles SET close = 'much' WHERE time = {START + 120}",
            ("binance BTCUSDT@1m", "a value is not a number", 1),
        ),
        (
            f"UPDATE candles SET time = {START + 50} WHERE time = {START + 60}",
            ("binance BTCUSDT@1m", "a candle begins before the one before it ends", 1),
        ),
        (
            f"DELETE FROM candles WHERE stream_id = 2 AND time = {START + 7200}",
            ("binance BTCUSDT@1h", "the span is stored as empty, but there is a candle of BTCUSDT@1m", 60),
        ),
        ("UPDATE totals SET candles = 7", ("", "the stored number of candles is wrong", 1)),
        ("UPDATE streams SET interval = '7m' WHERE id = 2", ("", "a stream has an unknown interval", 1)),
        (
            "INSERT INTO candles (stream_id, time, open, high, low, close, volume) VALUES (9, 60, 1, 1, 1, 1, 1)",
            ("", "rows belong to no stream", 1),
        ),
        ("INSERT INTO documents VALUES ('symbols', '[1,', 0)", ("", "a document is not JSON", 1)),
        (
            "UPDATE chunks SET text = substr(text, 1, 500) WHERE number = (SELECT min(number) FROM chunks)",
            ("binance BTCUSDT@1m", "encoded candles are damaged", 1),
        ),
        (
            f"UPDATE candles SET close = 2.25 WHERE time = {START + 60}",
            ("binance BTCUSDT@1m", "encoded candles differ from the candles", 1),
        ),
        (
            "UPDATE chunks SET number = number + 900",
            ("binance BTCUSDT@1m", "encoded candles where there are none", 2),
        ),
    ],
)
def test_what_is_wrong_is_found(
    path: Path, change: Callable[..., None], sql: str, expected: tuple[str, str, int]
) -> None:
    change(sql)
    assert expected in faults(path)


def test_a_chunk_that_lacks_a_candle_is_found(path: Path, change: Callable[..., None]) -> None:
    rows = minutes(0, 299)
    number = START // 60 // 512
    rows = [row for row in rows if row.time // 60 // 512 == number]
    until = rows[-1].time + 1
    change("UPDATE chunks SET head = ?, text = ?, until = ? WHERE number = ?", *pack(encode(rows[1:])), until, number)
    assert faults(path) == [("binance BTCUSDT@1m", "encoded candles differ from the candles", 1)]


def test_holes_that_no_other_interval_contradicts_are_believed(path: Path, change: Callable[..., None]) -> None:
    # A market that was closed from the third hour to the fifth.
    change("DELETE FROM candles WHERE time BETWEEN ? AND ?", START + 7200, START + 14_399)
    change("DELETE FROM chunks")
    change("UPDATE totals SET candles = candles - 122")
    assert faults(path) == []


def test_damaged_pages_are_found(path: Path, change: Callable[..., None]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'candles'").fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(content)
    assert {("", "cannot be read"), ("binance BTCUSDT@1m", "cannot be read")} <= {one[:2] for one in faults(path)}


def test_command_lists_faults_and_exits_1(store_command: Callable[..., Result], change: Callable[..., None]) -> None:
    change("DELETE FROM candles WHERE stream_id = 2 AND time = ?", START + 7200)
    result = store_command("--check")
    assert result.exit_code == 1
    assert result.output.splitlines()[-3:] == [
        "FAULT  binance BTCUSDT@1h: the span is stored as empty, but there is a candle of BTCUSDT@1m (60):"
        " 2023-11-15T00:00:00Z, 2023-11-15T00:01:00Z, 2023-11-15T00:02:00Z, 2023-11-15T00:03:00Z,"
        " 2023-11-15T00:04:00Z, …",
        "FAULT  file: the stored number of candles is wrong (1): 590, there are 589",
        "checked 589 candles, 3 spans, 2 encoded: 2 faults",
    ]
    found = json.loads(store_command("--check", "--json").output)["checked"]["faults"]
    assert found[1] == Fault("", "the stored number of candles is wrong", 1, ["590, there are 589"])._asdict()


# Against the provider


async def filled(sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path) -> list[str]:
    """Fill a file from the stand-ins; return the words with which it is looked at."""
    path = tmp_path / "sampled.db"
    relay = await relay_with(database=str(path))
    for symbol, interval in (("BTCUSDT", "1m"), ("ETHUSDT", "1h"), ("EUR/USD", "1h")):
        answer = await relay.get("history", symbol=symbol, interval=interval, limit=300, end_time=START)
        assert len(answer.body["candles"]) == 300
    config = tmp_path / "relay.toml"
    tables = sandbox.provider_settings()
    tables["twelve_data"]["market_hours"] = "always"
    lines = [f"[{name}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in t.items()) for name, t in tables.items()]
    config.write_text("\n".join(lines))
    return ["store", "--database", str(path), "--config", str(config), "--seed", "1"]


async def test_samples_agree_with_the_provider(sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path) -> None:
    words = await filled(sandbox, relay_with, tmp_path)
    result = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--sample", "6"])
    assert result.exit_code == 0, result.output
    assert "with the providers: 6 equal" in result.output
    told = json.loads((await asyncio.to_thread(CliRunner().invoke, main, [*words, "--sample", "6", "--json"])).output)
    assert sum(one["candles"] for one in told["samples"]) > 200


async def test_what_differs_from_the_provider_is_found(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    words = await filled(sandbox, relay_with, tmp_path)
    with closing(sqlite3.connect(words[2], isolation_level=None)) as connection:
        connection.execute("DELETE FROM candles WHERE stream_id = 1 AND time % 1200 = 0")
        connection.execute("UPDATE candles SET close = high WHERE stream_id = 2 AND close < high")
        connection.execute("UPDATE candles SET time = time + 60 WHERE stream_id = 3 AND time % 36000 = 0")
    result = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--sample", "12"])
    assert result.exit_code == 1
    for said in (
        "the provider has candles that are not stored (",
        "candles are stored that the provider does not have (",
        "values differ from the provider's (",
    ):
        assert said in result.output


async def test_a_provider_that_cannot_be_asked_is_a_fault(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    words = await filled(sandbox, relay_with, tmp_path)
    with closing(sqlite3.connect(words[2], isolation_level=None)) as connection:
        connection.execute("UPDATE streams SET provider = 'gone'")
    result = await asyncio.to_thread(CliRunner().invoke, main, [*words, "--sample", "1"])
    assert result.exit_code == 1
    assert "could not be compared: no provider gone with history is loaded" in result.output
