"""`relay history` over large ranges: page after page, into a file, gone on with after an interruption."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import stat
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from relay.cli import main
from relay.client import History, Refused, RelayClient
from relay.commands.candle_writer import CSV_HEAD, Earlier, read_earlier
from relay.commands.download import pages
from relay.commands.formatting import moment
from relay.core.model import Candle
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.loopback_server import app_of, loopback_server
from tests.support.running_relay import Running

START = 1_700_000_000 // 60 * 60
COUNT = 12_000
END = START + 60 * (COUNT - 1)


async def run(relay: Running, *words: str) -> Result:
    words = ("history", "BTCUSDT", "1m", *words, "--url", relay.url)
    return await asyncio.to_thread(CliRunner().invoke, main, words)


def times_of(csv: str) -> list[int]:
    head, *lines = csv.splitlines()
    assert head == "time,open,high,low,close,volume"
    return [int(line.split(",")[0]) for line in lines]


ALL = [START + 60 * number for number in range(COUNT)]


async def test_a_range_of_several_pages_is_whole_in_every_form(relay: Running) -> None:
    words = ("--start", str(START), "--end", str(END))
    csv = await run(relay, *words, "--csv")
    assert times_of(csv.stdout) == ALL
    rows = [json.loads(line) for line in (await run(relay, *words, "--ndjson")).stdout.splitlines()]
    assert [row["time"] for row in rows] == ALL
    assert all(row["is_closed"] is True for row in rows)
    whole = json.loads((await run(relay, *words, "--json")).stdout)
    assert [row["time"] for row in whole["candles"]] == ALL
    assert (whole["symbol"], whole["interval"], whole["last_is_closed"]) == ("BTCUSDT", "1m", True)
    assert len((await run(relay, *words)).stdout.splitlines()) == COUNT


async def test_limit_cuts_from_the_start_or_from_the_end(relay: Running) -> None:
    first = await run(relay, "--start", str(START), "--end", str(END), "--limit", "7000", "--csv")
    assert times_of(first.stdout) == ALL[:7000]
    last = await run(relay, "--end", str(END), "--limit", "11000", "--csv")
    assert times_of(last.stdout) == ALL[-11_000:]


async def test_it_ends_with_the_open_candle(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=1)
    start = answer.body["candles"][0]["time"] - 6000 * 60
    rows = [json.loads(row) for row in (await run(relay, "--start", str(start), "--ndjson")).stdout.splitlines()]
    assert [row["time"] for row in rows] == [start + 60 * number for number in range(len(rows))]
    assert len(rows) > 6000
    assert [row["is_closed"] for row in rows[-2:]] == [True, False]


@pytest.mark.parametrize("resume", [(), ("--resume",)])
async def test_a_file_that_another_process_writes_is_left_as_it_is(
    relay: Running, tmp_path: Path, resume: tuple[str, ...]
) -> None:
    file = tmp_path / "btc.csv"
    words = ("--start", str(START), "--end", str(START + 60 * 99), "--csv", "--output", str(file))
    assert (await run(relay, *words)).exit_code == 0
    half = file.read_bytes()[:-1000]
    file.write_bytes(half)
    with file.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = await run(relay, *words, *resume)
    assert result.exit_code == 1
    assert f"{file} is being written by another process; wait until it ends" in result.output
    assert file.read_bytes() == half
    assert (await run(relay, *words, *resume)).exit_code == 0
    assert times_of(file.read_text()) == ALL[:100]


async def test_a_file_is_written_and_gone_on_with(relay: Running, tmp_path: Path) -> None:
    file = tmp_path / "btc.csv"
    words = ("--start", str(START), "--csv", "--output", str(file))
    assert (await run(relay, *words, "--end", str(START + 60 * 7999), "--resume")).exit_code == 0
    assert times_of(file.read_text()) == ALL[:8000]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # As a kill in the middle of a line leaves it.
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert (await run(relay, *words, "--end", str(END), "--resume")).exit_code == 0
    assert times_of(file.read_text()) == ALL
    assert (await run(relay, *words, "--end", str(END), "--resume")).exit_code == 0
    assert times_of(file.read_text()) == ALL
    assert (await run(relay, *words, "--end", str(START))).exit_code == 0
    assert times_of(file.read_text()) == ALL[:1]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_extended_candles_are_written_and_gone_on_with(relay: Running, tmp_path: Path, form: str) -> None:
    end = START + 60 * 99
    truth = await relay.get(
        "history", symbol="BTCUSDT", interval="1m", start_time=START, end_time=end, format=form, extended="true"
    )
    file = tmp_path / f"btc.{form}"
    words = ("--start", str(START), f"--{form}", "--output", str(file))
    assert (await run(relay, *words, "--extended", "--end", str(START + 60 * 49))).exit_code == 0
    assert (await run(relay, *words, "--extended", "--end", str(end), "--resume")).exit_code == 0
    text = file.read_text().replace(',"is_closed":true', "")
    assert text == truth.text
    other = await run(relay, *words, "--end", str(end), "--resume")
    assert f"{file} cannot be continued: it was written with --extended" in other.output
    assert (await run(relay, *words, "--end", str(end))).exit_code == 0
    other = await run(relay, *words, "--extended", "--end", str(end), "--resume")
    assert f"{file} cannot be continued: it was written without --extended" in other.output


async def test_extended_json_is_as_the_relay_answers(relay: Running) -> None:
    words = ("--start", str(START), "--end", str(START + 60 * 9), "--json", "--extended")
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=START, limit=10, extended="true")
    assert json.loads((await run(relay, *words)).stdout)["candles"] == answer.body["candles"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("history", "BTCUSDT", "1m", "--extended"), "--extended needs --csv, --json or --ndjson"),
        (("tail", "BTCUSDT@1m", "--extended"), "--extended needs --json"),
    ],
)
def test_extended_goes_with_forms_that_have_place_for_it(words: tuple[str, ...], why: str) -> None:
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, why in result.output) == (2, True)


async def test_tail_prints_extended_candles(relay: Running) -> None:
    words = ("tail", "BTCUSDT@1s", "--json", "--extended", "--bars", "3", "--count", "3", "--url", relay.url)
    result = await asyncio.to_thread(CliRunner().invoke, main, words)
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    snapshot = next(one for one in messages if one["type"] == "snapshot")
    updates = [one for one in messages if one["type"] == "price_update"]
    assert len(updates) == 3
    for candle in (*snapshot["candles"], *(one["candle"] for one in updates)):
        assert candle["trades"] >= 0


async def test_csv_has_the_columns_and_the_candles_of_the_relay_itself(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=START, limit=50, format="csv")
    printed = await run(relay, "--start", str(START), "--limit", "50", "--csv")
    assert printed.stdout.splitlines()[0] == answer.text.splitlines()[0]
    assert printed.stdout == answer.text
    # The candle that is open is in neither.
    assert len((await run(relay, "--limit", "3", "--csv")).stdout.splitlines()) == 1 + 3


ROW = b'{"time":60,"open":1,"high":1,"low":1,"close":1,"volume":1,"is_closed":true}\n'
STRANGE = (
    *(b"name,price\nBTC,1\n", b"dear diary\n", b"[section]\n", b"time,open\n", b'{"a": 1}\n', b"\x00\xff" * 5000),
    *(CSV_HEAD + b"mine,1,2\n", CSV_HEAD + b"60,1,1,1,1,1\n# a note\n", b'{"symbol":"X","notes":"mine"}'),
    *(b"a\tb\tc\td\te\tf\tclosed\n", ROW + b'{"a":1}\n'),
)


@pytest.mark.parametrize("content", STRANGE)
async def test_a_file_of_another_program_is_written_over_only_by_force(
    relay: Running, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "notes"
    file.write_bytes(content)
    for form in ("--csv", "--json", "--ndjson"):
        result = await run(relay, "--start", str(START), "--limit", "2", form, "--output", str(file))
        assert (result.exit_code, file.read_bytes()) == (1, content)
        assert f"{file} exists, and this command did not write it; use --force" in result.output
    words = ("--start", str(START), "--limit", "2", "--csv", "--output", str(file), "--force")
    assert (await run(relay, *words)).exit_code == 0
    assert times_of(file.read_text()) == ALL[:2]


async def test_nothing_happens_to_a_file_before_there_are_candles(relay: Running, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.csv", tmp_path / "other.csv"
    words = ("--start", str(START), "--limit", "2", "--csv", "--output")
    assert (await run(relay, *words, str(mine))).exit_code == 0
    for file in (mine, other):
        command = ("history", "NOPE", "1m", *words, str(file))
        for url in (relay.url, "http://127.0.0.1:1"):
            result = await asyncio.to_thread(CliRunner().invoke, main, (*command, "--url", url))
            assert result.exit_code == 1
    assert times_of(mine.read_text()) == ALL[:2]
    assert not other.exists()
    assert (await run(relay, *words, "/dev/null")).exit_code == 0


@pytest.mark.parametrize("form", [["--csv"], ["--json"], ["--ndjson"], []])
async def test_a_file_of_its_own_is_written_over(relay: Running, tmp_path: Path, form: list[str]) -> None:
    file = tmp_path / "candles"
    file.touch()
    for limit in ("3", "2", "2"):
        words = ("--start", str(START), "--limit", limit, "--output", str(file))
        assert (await run(relay, *words, *form)).exit_code == 0
    assert (await run(relay, *words, "--csv")).exit_code == 0
    assert times_of(file.read_text()) == ALL[:2]


@pytest.mark.parametrize(
    ("content", "form", "point", "left"),
    [
        (CSV_HEAD, "csv", None, CSV_HEAD),
        (CSV_HEAD + b"60,1,1,1,1,1\n120,1,1,1,1,1", "csv", 61, CSV_HEAD + b"60,1,1,1,1,1\n"),
        (CSV_HEAD + b"60,1,1,1,1,1\n12", "csv", 61, CSV_HEAD + b"60,1,1,1,1,1\n"),
        (ROW + b'{"ti', "ndjson", 61, ROW),
        (ROW + ROW.replace(b"60", b"120").replace(b"true", b"false"), "ndjson", 61, ROW),
        (b"", "ndjson", None, b""),
    ],
)
def test_a_file_goes_on_behind_its_last_closed_candle(
    tmp_path: Path, content: bytes, form: str, point: int | None, left: bytes
) -> None:
    file = tmp_path / "candles"
    file.write_bytes(content)
    earlier = read_earlier(file, form)
    assert file.read_bytes() == content
    if not content:
        assert earlier is None
        return
    assert earlier is not None
    assert content[: earlier.size] == left
    assert [candle.time + 1 for candle in earlier.candles] == ([] if point is None else [point])


def test_the_last_closed_candles_of_a_file_are_read_across_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "candles.csv"
    rows = [b"%d,1.5,2,1,1.25,%d\n" % (60 * number, number) for number in range(2000)]
    file.write_bytes(CSV_HEAD + b"".join(rows) + b"120000,1,1,1,1,1")
    earlier = read_earlier(file, "csv")
    assert earlier is not None
    assert earlier.candles == tuple(Candle(60 * n, 1.5, 2, 1, 1.25, n) for n in range(1990, 2000))
    assert earlier.size == len(CSV_HEAD) + sum(map(len, rows))


def candles(*times: int, price: float = 1.0) -> tuple[Candle, ...]:
    return tuple(Candle(time, price, price, price, price, time) for time in times)


@pytest.mark.parametrize(
    ("theirs", "is_same"),
    [
        (candles(60, 120, 180), True),
        (candles(60, 120) + candles(180, price=2.0), True),
        (candles(60, 90, 120, 180), True),
        (candles(60, 120), True),
        (candles(60) + candles(120, 180, price=2.0), False),
        (candles(180), False),
        (candles(*range(60, 181, 10)), False),
        ((), False),
    ],
)
def test_a_file_is_of_the_stream_that_most_of_its_candles_are_of(theirs: tuple[Candle, ...], is_same: bool) -> None:
    earlier = Earlier(candles(60, 120, 180), 0)
    assert earlier.is_of(History("BTCUSDT", "1m", theirs, True, {})) == is_same


@pytest.mark.parametrize("other", [("ETHUSDT", "1m"), ("BTCUSDT", "1h"), ("BTCUSDT", "5m")])
@pytest.mark.parametrize("form", ["csv", "ndjson"])
@pytest.mark.parametrize("end", [END, START])
async def test_a_file_of_another_stream_is_refused_by_name_and_not_touched(
    relay: Running, tmp_path: Path, other: tuple[str, str], form: str, end: int
) -> None:
    file = tmp_path / f"candles.{form}"
    words = ("--start", str(START), f"--{form}", "--output", str(file))
    assert (await run(relay, *words, "--end", str(START + 60 * 300))).exit_code == 0
    before = file.read_bytes()
    command = ["history", *other, *words, "--end", str(end), "--resume", "--url", relay.url]
    result = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert result.exit_code == 1
    assert f"{file} cannot be continued" in result.stderr
    assert f"not those of {other[0]}@{other[1]}" in result.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_a_file_that_begins_after_the_start_is_refused_by_name_and_not_touched(
    relay: Running, tmp_path: Path, form: str
) -> None:
    file = tmp_path / f"candles.{form}"
    words = (f"--{form}", "--output", str(file))
    assert (await run(relay, *words, "--start", str(START + 600), "--end", str(START + 1200))).exit_code == 0
    before = file.read_bytes()
    result = await run(relay, *words, "--start", str(START), "--end", str(END), "--resume")
    assert result.exit_code == 1
    assert f"{file} cannot be continued: it begins at {moment(START + 600)}" in result.stderr
    assert f"with --end {moment(START + 599)}" in result.stderr
    assert file.read_bytes() == before


async def test_a_file_that_begins_with_the_first_candle_there_is_is_gone_on_with(
    relay: Running, tmp_path: Path
) -> None:
    file = tmp_path / "btc.csv"
    words = ("--start", "0", "--csv", "--output", str(file))
    assert (await run(relay, *words, "--limit", "20")).exit_code == 0
    first = times_of(file.read_text())[0]
    assert first > 0
    result = await run(relay, *words, "--limit", "20", "--resume")
    assert (result.exit_code, result.stderr) == (0, "")
    assert times_of(file.read_text()) == [first + 60 * number for number in range(40)]


@pytest.mark.parametrize("time", ["9" * 5000, "1764000000000", "9999-12-31", "1960-01-01", "\ud800"])
async def test_a_time_that_is_none_is_refused_by_name(relay: Running, time: str) -> None:
    result = await run(relay, "--start", time)
    assert (result.exit_code, "Invalid value for '--start'" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("content", "form"), [(b"name,price\nBTC,1\n", "csv"), (b"name\n", "ndjson"), (b"x" * 9000 + b"\n", "ndjson")]
)
async def test_another_file_is_not_touched(relay: Running, tmp_path: Path, content: bytes, form: str) -> None:
    file = tmp_path / "other"
    file.write_bytes(content)
    result = await run(relay, "--start", str(START), f"--{form}", "--output", str(file), "--resume")
    assert result.exit_code == 1
    assert f"{file} cannot be continued" in result.stderr
    assert file.read_bytes() == content


async def test_a_symbol_that_is_unknown_is_said_in_words_of_the_command(relay: Running) -> None:
    for symbol, words in (("BTC/USDT", "did you mean BTCUSDT?"), ("NOPE", "relay symbols lists all")):
        for command in (["history", symbol, "1m"], ["tail", f"{symbol}@1m"]):
            result = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--url", relay.url])
            assert (result.exit_code, words in result.stderr, "GET" in result.stderr) == (1, True, False), result.stderr


async def test_a_time_in_milliseconds_is_refused_with_the_one_that_is_meant(relay: Running) -> None:
    result = await run(relay, "--start", "1764000000000")
    assert result.stderr.endswith("and 2025-11-24T16:00: did you mean 1764000000?\n")


async def test_an_empty_name_is_refused_with_an_example(relay: Running) -> None:
    for words, example in ((["", "1m"], "BTCUSDT"), (["BTCUSDT", ""], "1m")):
        result = await asyncio.to_thread(CliRunner().invoke, main, ["history", *words, "--url", relay.url])
        assert result.stderr.endswith(f" '' is not a name that a relay accepts; give one, for example {example}\n")


async def test_an_address_with_a_route_behind_it_is_said_to_be_none_of_a_relay(relay: Running) -> None:
    url = f"{relay.url}/api/v1/market-data/ws"
    result = await asyncio.to_thread(CliRunner().invoke, main, ["status", "--url", url])
    assert result.stderr.startswith(f"Error: {url} is not exactly the address of a relay; relay serve")


@pytest.mark.parametrize(("written", "meant"), [("2025", "2025-01-01"), ("20251124", "2025-11-24")])
async def test_a_year_or_a_day_is_no_second_of_1970(relay: Running, written: str, meant: str) -> None:
    result = await run(relay, "--start", written)
    said = f"Invalid value for '--start': {written} would be a second of 1970; did you mean {meant}?\n"
    assert (result.exit_code, result.stderr.endswith(said)) == (2, True)


async def test_a_start_in_the_future_is_said_in_words_of_the_command(relay: Running) -> None:
    result = await run(relay, "--start", "2099-01-01")
    assert result.stderr.startswith("Error: --start 4070908800 (2099-01-01T00:00:00+00:00) is in the future")


async def test_what_is_wrong_with_a_time_is_said_in_words_of_the_command(relay: Running) -> None:
    for time in ("yesterday", "2026-13-01"):
        result = await run(relay, "--start", time)
        said = " ".join(result.stderr.split())
        assert f"'{time}' is not a time; write a date such as 2025-11-24 or 2025-11-24T16:00 (UTC), or Unix" in said
    result = await run(relay, "--start", "5000-01-01")
    assert result.stderr.startswith("Error: --start 95617584000 (5000-01-01T00:00:00+00:00) is in the future")


async def test_a_file_that_cannot_be_written_is_said(relay: Running, tmp_path: Path) -> None:
    result = await run(relay, "--start", str(END), "--csv", "--output", str(tmp_path / "none" / "x.csv"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {tmp_path}/none/x.csv cannot be written: No such file or directory\n",
    )


async def test_a_terminal_sees_how_far_it_is(relay: Running, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("--start", str(START), "--end", str(END), "--csv", "--output", str(tmp_path / "btc.csv"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "history", "BTCUSDT", "1m", *words, "--url", relay.url),
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = await asyncio.to_thread(os.read, ours, 65_536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert await process.wait() == 0
    assert b"12,000 candles" in shown
    assert times_of((tmp_path / "btc.csv").read_text()) == ALL


@pytest.mark.parametrize(
    ("form", "way"),
    [
        (["--csv", "--output", "btc.csv"], " in btc.csv; continue with --resume"),
        (
            ["--json", "--output", "x", "--limit", "20000"],
            " in x; continue with --start 300001 --limit 15000 and another file; the JSON is not complete",
        ),
        (["--csv"], "; continue with --start 300001"),
    ],
)
async def test_who_interrupts_it_is_told_how_far_it_came_and_how_to_go_on(
    tmp_path: Path, form: list[str], way: str
) -> None:
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        start = int(request.query["start_time"])
        if start:
            asked.set()
            await asyncio.sleep(60)
        rows = [{"time": 60 * n, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 0} for n in range(1, 5001)]
        return web.json_response({"symbol": "A", "interval": "1m", "candles": rows, "last_is_closed": True})

    app = web.Application()
    app.router.add_get("/api/v1/market-data/history", answer)
    async with TestServer(app) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "history", "A", "1m", "--start", "0", *form),
            *("--url", str(server.make_url(""))),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        reading = asyncio.create_task(process.communicate())
        async with asyncio.timeout(LONGEST_WAIT_S):
            await asked.wait()
        process.send_signal(signal.SIGINT)
        _, said = await reading
    assert process.returncode == 130
    assert said.decode() == f"relay: interrupted; candles up to 1970-01-04T11:20:00Z are written{way}\n"


async def test_what_a_moment_heals_is_tried_again() -> None:
    """A relay out of budget in the middle of a range says when to come back."""
    asked: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        start = int(request.query["start_time"])
        asked.append(start)
        if len(asked) == 2:
            return web.json_response({"detail": "later"}, status=503, headers={"Retry-After": "0"})
        if len(asked) == 4:
            return web.json_response({"detail": "no such symbol"}, status=404)
        rows = [{"time": start + n, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 0} for n in range(5000)]
        return web.json_response({"symbol": "A", "interval": "1s", "candles": rows, "last_is_closed": True})

    found: list[History] = []
    async with loopback_server(app_of(answer)) as host, RelayClient(f"http://{host}") as client:

        async def read_all() -> None:
            async for page in pages(client, "A", "1s", start=0, end=None, limit=None):
                found.append(page)

        with pytest.raises(Refused, match="no such symbol"):
            await read_all()
    assert asked == [0, 5000, 5000, 10_000]
    assert found[1].candles[0] == Candle(5000, 1, 1, 1, 1, 0)


async def test_who_interrupts_it_before_there_are_candles_is_told_so(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(60)
        return web.Response()

    app = web.Application()
    app.router.add_get("/api/v1/market-data/history", answer)
    async with TestServer(app) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "history", "A", "1m", "--output", "x", "--url", str(server.make_url(""))),
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        reading = asyncio.create_task(process.communicate())
        async with asyncio.timeout(LONGEST_WAIT_S):
            await asked.wait()
        process.send_signal(signal.SIGINT)
        _, said = await reading
    assert said.decode() == "relay: interrupted before the first candles came; nothing is written\n"
    assert (process.returncode, os.listdir(tmp_path)) == (130, [])
