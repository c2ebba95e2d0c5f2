import asyncio
import io
import os
import pty
import re
import signal
import sys
from pathlib import Path
from typing import cast

import click
import orjson
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from relay.client import Confirmed, Connected, Failure, Gap, Lost, Message, Snapshot, State, StreamState, Update
from relay.commands import formatting as figures
from relay.commands import history, status, symbols, tail
from relay.commands import status_format as report
from relay.commands.formatting import json_line
from relay.commands.tail_table import TailTable
from relay.core.model import Candle, StreamKey
from relay.protocol.fields import WHERE_SYMBOLS_ARE
from tests.support.client_readings import relay
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port
from tests.support.stand_in_relay import StandInRelay, problem_json

__all__ = ["relay"]

BTC = StreamKey("BTCUSDT", "1m")
START = 1_764_000_000
COMMANDS = {module.command.name or "": module.command for module in (tail, history, symbols, status)}
GROUP = click.Group("relay", COMMANDS)
PROGRAM = (
    "import importlib, sys; name = sys.argv.pop(1); "
    "importlib.import_module(f'relay.commands.{name}').command(prog_name=f'relay {name}')"
)


async def run(relay: StandInRelay, *words: str, **environment: str | None) -> Result:
    clean: dict[str, str | None] = {"RELAY_TOKEN": None, "RELAY_TOKEN_FILE": None, "RELAY_URL": relay.url}
    return await asyncio.to_thread(CliRunner().invoke, GROUP, words, env=clean | environment)


class Terminal:
    """A command on a pseudo-terminal; `shown` is all that it wrote."""

    def __init__(self, columns: int) -> None:
        self.shown = ""
        self._columns = columns
        self._has_more = asyncio.Event()
        self._is_read = asyncio.Event()

    async def start(self, relay: StandInRelay, *words: str, **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        size = {"COLUMNS": str(self._columns), "LINES": "24", "TERM": "xterm", "LANG": "C.UTF-8"}
        clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "RELAY_TOKEN"}}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *words),
            env=clean | size | {"RELAY_URL": relay.url} | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
            self._has_more.set()
        except OSError:
            # Nobody has the other side open any more.
            asyncio.get_running_loop().remove_reader(self._ours)
            self._is_read.set()

    async def wait_for(self, text: str) -> None:
        async with asyncio.timeout(LONGEST_WAIT_S):
            while text not in self.shown:
                self._has_more.clear()
                await self._has_more.wait()

    async def end(self) -> int:
        """Wait for the end of the command, and for all that it wrote; return its exit code."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            code = await self.process.wait()
            await self._is_read.wait()
        os.close(self._ours)
        return code


async def piped(relay: StandInRelay, *words: str, program: str = PROGRAM) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *words),
        env={**os.environ, "RELAY_URL": relay.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


# -- tail -----------------------------------------------------------------------------------------------------------


async def test_command_goes_on_at_the_next_address(relay: StandInRelay) -> None:
    away = f"127.0.0.1:{free_port()}"
    listed = await run(relay, "symbols", "--url", f"{away}, {relay.url}")
    assert (listed.exit_code, listed.output) == (0, "BTCUSDT\n")
    tailed = await run(relay, "tail", "BTCUSDT@1m", "--count", "1", RELAY_URL=f"{away},{relay.url}")
    assert tailed.exit_code == 0
    refused = await run(relay, "symbols", "--url", f"{relay.url},")
    assert refused.exit_code == 2


async def test_tail_prints_one_update_a_line_and_marks_closed_candles(relay: StandInRelay) -> None:
    running = asyncio.create_task(run(relay, "tail", "btcusdt@1m", "--bars", "2", "--count", "2"))
    await relay.wait_for_requests(1)
    await relay.close_candle(BTC)
    result = await running
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "2025-11-24T16:02:00Z\tBTCUSDT@1m\t102\t103\t101\t102.5\t10\tclosed",
        "2025-11-24T16:03:00Z\tBTCUSDT@1m\t103\t104\t102\t103.5\t10\topen",
        "2025-11-24T16:03:00Z\tBTCUSDT@1m\t103\t104\t102\t103.5\t10\tclosed",
        "2025-11-24T16:04:00Z\tBTCUSDT@1m\t103.5\t104.5\t102.5\t104\t10\topen",
    ]
    assert result.stderr == ""


async def test_tail_prints_messages_as_json(relay: StandInRelay) -> None:
    result = await run(relay, "tail", "BTCUSDT@1m", "--json", "--count", "1")
    messages = [orjson.loads(line) for line in result.stdout.splitlines()]
    assert [message["type"] for message in messages] == ["status", "subscription", "price_update"]
    assert messages[2]["candle"]["close"] == 103.5


class Messages:
    """A client that gives these, and then nothing more; None is a message that never comes."""

    def __init__(self, *messages: Message | None) -> None:
        self._left = list(messages)

    def __aiter__(self) -> "Messages":
        return self

    async def __anext__(self) -> Message:
        if not self._left:
            raise StopAsyncIteration
        if (message := self._left.pop(0)) is None:
            await asyncio.Event().wait()
        assert message is not None
        return message


def snapshot_of(key: StreamKey) -> Snapshot:
    return Snapshot(key, (), True, True, None, {})


async def test_tail_begins_with_the_past_of_each_stream_in_the_order_asked() -> None:
    one, two, three = (StreamKey(name, "1m") for name in ("ONE", "TWO", "three:THREE"))
    canonical = StreamKey("THREE", "1m")
    states = {key: State(key, "connected", "live", {}) for key in (one, two, canonical)}
    update = Update(two, Candle(60, 1, 1, 1, 1, 1), False, False, False, None, None, {})
    pinned = Confirmed(canonical, "subscribe", {"provider": "three"})
    came = (states[two], snapshot_of(two), update, pinned, snapshot_of(canonical), states[one], snapshot_of(one))
    given = [message async for message in tail.in_order(Messages(*came), [three, one, two])]
    assert given == [
        pinned,
        snapshot_of(canonical),
        states[one],
        snapshot_of(one),
        states[two],
        snapshot_of(two),
        update,
    ]


async def test_tail_waits_for_no_past_that_does_not_come() -> None:
    one, two = StreamKey("ONE", "1m"), StreamKey("TWO", "1m")
    given = [message async for message in tail.in_order(Messages(snapshot_of(two), None), [one, two])]
    assert given == [snapshot_of(two)]
    refused = Failure("unknown_symbol", "no", one, False, {})
    given = [message async for message in tail.in_order(Messages(snapshot_of(two), refused), [one, two])]
    assert given == [refused, snapshot_of(two)]


async def test_tail_tells_losses_on_stderr_and_goes_on(relay: StandInRelay) -> None:
    running = asyncio.create_task(run(relay, "tail", "BTCUSDT@1m", "--bars", "1", "--closed-only", "--count", "2"))
    await relay.wait_for_requests(1)
    await relay.drop(1001, "server shutdown")
    await relay.close_candle(BTC)
    await relay.close_candle(BTC)
    result = await running
    assert [line.split("\t")[0][11:16] + line.split("\t")[-1] for line in result.stdout.splitlines()] == [
        "16:02closed",
        "16:03closed backfilled",
        "16:04closed backfilled",
    ]
    first, second = result.stderr.splitlines()
    assert first.startswith("relay: connection to the relay lost (server shutdown); next attempt in ")
    assert second == "relay: connected again"


async def test_tail_goes_on_with_the_streams_that_exist(relay: StandInRelay) -> None:
    result = await run(relay, "tail", "NOPE@1m", "BTCUSDT@1m", "--count", "1")
    assert (result.exit_code, result.stderr) == (0, "relay: NOPE@1m: no NOPE\n")


async def test_tail_without_any_stream_left_ends_with_the_reason(relay: StandInRelay) -> None:
    result = await run(relay, "tail", "NOPE@1m")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no NOPE\n")


@pytest.mark.parametrize(
    "words",
    [
        ["tail"],
        ["tail", "BTCUSDT"],
        ["tail", "BTCUSDT@1m", "--count", "0"],
        ["tail", "\udcff@1m"],
        ["tail", f"{'X' * 5000}@1m"],
        ["tail", "BTCUSDT@1m", "--url", "http://[::1"],
        ["tail", "BTCUSDT@1m", "--url", "ftp://x"],
        ["history", "BTCUSDT", "1m", "--start", "yesterday"],
        ["history", "BTCUSDT", "1m", "--start", "1764000000000"],
        ["history", "BTCUSDT", "1m", "--end", "9" * 5000],
        ["history", "BTCUSDT", "1m", "--start", "2025-02-01", "--end", "2025-01-01"],
        ["history", "BTCUSDT", "1m", "--limit", "50001"],
        ["history", "BTCUSDT", "1m", "--start", "0", "--resume"],
        ["history", "BTCUSDT", "1m", "--csv", "--json"],
        ["symbols", "--token", "two words"],
    ],
)
async def test_wrong_usage_exits_2(relay: StandInRelay, words: list[str]) -> None:
    result = await run(relay, *words)
    assert result.exit_code == 2
    assert "two words" not in result.stderr
    assert not relay.headers


@pytest.mark.parametrize("words", [["history", "\udcff", "1m"], ["history", "BTCUSDT", "X" * 5000],
                                   ["symbols", "--asset-class", "\udcff"]])  # fmt: skip
async def test_what_cannot_be_sent_is_one_line_and_exit_1(relay: StandInRelay, words: list[str]) -> None:
    result = await run(relay, *words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("Error: ")
    assert not relay.headers


@pytest.mark.parametrize(
    "words", [["tail", "BTCUSDT@1m"], ["history", "BTCUSDT", "1m"], ["symbols"], ["status", "--watch"]]
)
async def test_nobody_at_the_address_is_one_line_and_exit_1(relay: StandInRelay, words: list[str]) -> None:
    await relay.stop()
    result = await run(relay, *words)
    assert result.exit_code == 1
    assert result.stderr == f"Error: no relay reached at {relay.url}: connection refused\n"


@pytest.mark.parametrize("words", [["tail", "BTCUSDT@1m"], ["history", "BTCUSDT", "1m"], ["symbols"], ["status"]])
async def test_missing_token_says_how_to_give_it(relay: StandInRelay, words: list[str]) -> None:
    relay.token = "s3cret"
    result = await run(relay, *words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "--token, RELAY_TOKEN or RELAY_TOKEN_FILE" in result.stderr
    assert (await run(relay, "symbols", RELAY_TOKEN="s3cret")).exit_code == 0
    assert (await run(relay, "symbols", "--token", "s3cret")).exit_code == 0


async def test_token_may_be_in_a_file(relay: StandInRelay, tmp_path: Path) -> None:
    relay.token = "s3cret"
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    file = str(tmp_path / "token")
    assert (await run(relay, "symbols", RELAY_TOKEN_FILE=file)).exit_code == 0
    # Whoever gives a flag means it.
    assert (await run(relay, "symbols", "--token", "wrong", RELAY_TOKEN_FILE=file)).exit_code == 1
    assert (await run(relay, "symbols", "--token", "s3cret", RELAY_TOKEN_FILE=str(tmp_path))).exit_code == 0
    both = await run(relay, "symbols", RELAY_TOKEN="s3cret", RELAY_TOKEN_FILE=file)
    assert (both.exit_code, "RELAY_TOKEN and RELAY_TOKEN_FILE are both set" in both.stderr) == (2, True)
    # As `relay token > FILE` writes it: the token, and its hash below.
    (tmp_path / "two").write_text("s3cret\nsha256:00\n")
    two = await run(relay, "symbols", RELAY_TOKEN_FILE=str(tmp_path / "two"))
    assert (two.exit_code, "RELAY_TOKEN_FILE: the token holds a line end" in two.stderr) == (2, True)
    folder = await run(relay, "symbols", RELAY_TOKEN_FILE=str(tmp_path))
    assert (folder.exit_code, f"RELAY_TOKEN_FILE: cannot read {tmp_path}: Is a directory" in folder.stderr) == (2, True)


async def test_reader_that_leaves_ends_tail_quietly(relay: StandInRelay) -> None:
    process = await piped(relay, "tail", "BTCUSDT@1m", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"connected" in await process.stdout.readline()
    await relay.wait_for_requests(1)
    process.stdout._transport.close()  # type: ignore[attr-defined]  # a StreamReader has no public close
    async with asyncio.timeout(LONGEST_WAIT_S):
        while process.returncode is None:
            await relay.tick(BTC, 1.0)
            await asyncio.sleep(0.01)
    assert (process.returncode, await process.stderr.read()) == (0, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_signal_ends_tail_quietly(relay: StandInRelay, number: signal.Signals, code: int) -> None:
    process = await piped(relay, "tail", "BTCUSDT@1m")
    await relay.wait_for_requests(1)
    process.send_signal(number)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (code, b"")


async def test_a_signal_is_obeyed_where_the_event_loop_takes_no_handlers(relay: StandInRelay) -> None:
    refuses = "import asyncio; asyncio.SelectorEventLoop.add_signal_handler = asyncio.BaseEventLoop.add_signal_handler"
    process = await piped(relay, "tail", "BTCUSDT@1m", program=f"{refuses}; {PROGRAM}")
    await relay.wait_for_requests(1)
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (143, b"")


@pytest.mark.parametrize("columns", [80, 160])
async def test_terminal_gets_a_live_table(relay: StandInRelay, columns: int) -> None:
    terminal = Terminal(columns)
    await terminal.start(relay, "tail", "BTCUSDT@1m")
    await terminal.wait_for("103.5")
    await relay.tick(BTC, 108.25)
    await terminal.wait_for("108.25")
    assert relay.requests[0]["bars"] == 60
    await relay.drop(1001, "server shutdown")
    await terminal.wait_for("offline")
    await terminal.wait_for("connected again")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.shown
    # Colours are used, and the cursor is shown again.
    assert "\x1b[32m" in terminal.shown
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


async def test_no_color_is_respected(relay: StandInRelay) -> None:
    terminal = Terminal(80)
    await terminal.start(relay, "history", "BTCUSDT", "1m", NO_COLOR="1")
    await terminal.wait_for("still open")
    assert await terminal.end() == 0
    assert "\x1b[32m" not in terminal.shown
    assert "\x1b[31m" not in terminal.shown


async def test_dumb_terminal_gets_lines(relay: StandInRelay) -> None:
    terminal = Terminal(80)
    await terminal.start(relay, "tail", "BTCUSDT@1m", "--count", "1", TERM="dumb")
    await terminal.wait_for("103.5\t10\topen")
    assert await terminal.end() == 0
    assert "\x1b" not in terminal.shown


# -- the board ------------------------------------------------------------------------------------------------------


def drawn(board: TailTable, width: int, height: int = 24, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=file, width=width, height=height, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(board)
    return capture.get()


def candle(time: int, close: float) -> Candle:
    return Candle(time=time, open=86_000.25, high=86_900.5, low=85_000.75, close=close, volume=1234.5)


@pytest.fixture
def board() -> TailTable:
    board = TailTable("http://127.0.0.1:8000", [], lambda: 100.0)
    candles = tuple(candle(START + 60 * n, 86_000.0 + n) for n in range(70))
    messages: list[Message] = [
        Connected("e1", START, {}),
        Confirmed(BTC, "subscribe", {}),
        Snapshot(BTC, candles, False, True, 1, {}),
        Update(BTC, candle(candles[-1].time, 86_200.01), False, False, False, None, 2, {}),
        Confirmed(StreamKey("EUR/USD", "1h"), "subscribe", {}),
        State(StreamKey("EUR/USD", "1h"), "market_closed", "opens Sunday 22:00 UTC", {}),
        Failure("unknown_symbol", "no NOPE", StreamKey("NOPE", "1m"), False, {}),
    ]
    for message in messages:
        board.take(message)
    return board


@pytest.mark.parametrize("width", [60, 80, 100, 160, 250])
def test_board_shows_everything_within_the_width(board: TailTable, width: int) -> None:
    picture = drawn(board, width)
    assert max(map(len, picture.splitlines())) <= width
    for text in ("BTCUSDT", "live", "17:09:00", "86200.01", "+0.23%", "0.0s", "█", "market closed", "refused"):
        assert text in picture, text
    if width >= 80:
        for text in ("86000.25", "86900.50", "85000.75", "1.23K", "opens Sunday 22:00 UTC"):
            assert text in picture, text


def test_board_keeps_the_order_asked_whoever_is_heard_of_first() -> None:
    keys = [StreamKey(symbol, "1m") for symbol in ("ZZZ", "AAA", "MMM")]
    board = TailTable("http://127.0.0.1:8000", keys)
    board.take(Connected("e1", START, {}))
    for key in (keys[1], keys[2], keys[0]):
        board.take(Confirmed(key, "subscribe", {}))
        board.take(Update(key, candle(START, 86_200.01), False, False, False, None, 2, {}))
    picture = drawn(board, 80)
    assert picture.index("ZZZ") < picture.index("AAA") < picture.index("MMM")


def test_board_has_one_row_for_a_stream_that_is_asked_for_by_two_names() -> None:
    eth, pinned = StreamKey("ETHUSDT", "1m"), StreamKey("BINANCE:ETHUSDT", "1m")
    for asked in ([pinned, BTC], [pinned, BTC, eth], [eth, BTC, pinned]):
        board = TailTable("http://127.0.0.1:8000", asked)
        board.take(Connected("e1", START, {}))
        for key in (BTC, eth):
            board.take(Confirmed(key, "subscribe", {"provider": "binance"}))
            board.take(Update(key, candle(START, 86_200.01), False, False, False, None, 2, {}))
        picture = drawn(board, 140)
        assert picture.count("● live") == 2
        assert "connecting" not in picture
        assert picture.index("ETHUSDT") < picture.index("BTCUSDT")


@pytest.mark.parametrize("width", range(20, 80))
@pytest.mark.parametrize("height", [6, 24])
def test_board_of_a_narrow_window_cuts_no_figure_and_names_the_columns_that_it_lacks(width: int, height: int) -> None:
    board = TailTable("http://127.0.0.1:8000", [BTC], lambda: 100.0)
    board.take(Connected("e1", START, {}))
    board.take(Update(BTC, candle(START, 86_200.01), False, False, False, None, 2, {}))
    picture = drawn(board, width, height)
    assert len(picture.splitlines()) <= 24
    named = " ".join(picture.split()).partition("a wider window also shows:")[2].replace("recent closes", "")
    figures = {"86200.01": "close", "+0.23%": "change", "1.23K": "volume", "16:00:00": "time"}
    if height > 6:
        figures |= {"86900.50": "high", "85000.75": "low", "86000.25": "open"}
    for figure, column in figures.items():
        assert (figure in picture) != (column in named), picture
        assert picture.count(figure[:4]) == picture.count(figure), picture


def test_board_speaks_of_commands_where_the_relay_speaks_of_routes() -> None:
    board = TailTable("http://127.0.0.1:8000", [])
    board.take(Failure("unknown_symbol", f"unknown; {WHERE_SYMBOLS_ARE}", StreamKey("NOPE", "1m"), False, {}))
    assert "relay symbols lists all" in drawn(board, 100)


def test_board_says_offline_while_the_connection_is_lost(board: TailTable) -> None:
    board.take(Lost("gone", 1001, 3.0, {}))
    picture = drawn(board, 80)
    assert "next attempt in 3 s" in picture
    assert picture.count("● offline") == 2
    assert "● live" not in picture


@pytest.mark.parametrize("width", [80, 160])
def test_board_of_many_streams_stays_within_the_window(width: int) -> None:
    board = TailTable("http://127.0.0.1:8000", [])
    board.take(Connected("e1", START, {}))
    for number in range(50):
        key = StreamKey(f"COIN{number}", "1m")
        board.take(Confirmed(key, "subscribe", {}))
        board.take(State(key, "stale", "silent", {}))
    picture = drawn(board, width, 24)
    assert len(picture.splitlines()) < 24
    assert "more streams; a taller window shows them" in picture


def test_board_keeps_texts_of_the_relay_from_steering_the_terminal() -> None:
    board = TailTable("http://127.0.0.1:8000", [])
    hostile = cast(StreamState, "\x1b]0;x\x07")
    board.take(State(StreamKey("A\x1b[2J[bold]", "1m"), hostile, "\x1b[31mred", {}))
    assert "\x1b" not in drawn(board, 80)
    assert "[bold]" in drawn(board, 80)


def test_board_draws_with_the_characters_that_the_terminal_has(board: TailTable) -> None:
    assert "█" not in drawn(board, 80, encoding="ascii")


def test_board_ignores_what_it_does_not_show(board: TailTable) -> None:
    before = drawn(board, 80)
    board.take(Gap(BTC, 1, 2, "lost", {}))
    board.take(Update(BTC, candle(START, 1.0), True, False, True, None, 3, {}))
    assert drawn(board, 80) == before


# -- history, symbols -----------------------------------------------------------------------------------------------


async def test_history_prints_lines(relay: StandInRelay) -> None:
    result = await run(relay, "history", "btcusdt", "1m", "--limit", "2")
    assert result.stdout.splitlines() == [
        "2025-11-24T16:02:00Z\t102\t103\t101\t102.5\t10\tclosed",
        "2025-11-24T16:03:00Z\t103\t104\t102\t103.5\t10\topen",
    ]


async def test_history_prints_csv_with_a_header(relay: StandInRelay) -> None:
    result = await run(relay, "history", "BTCUSDT", "1m", "--limit", "2", "--csv")
    assert result.stdout == (
        "time,open,high,low,close,volume\n"
        "1764000060,101.0,102.0,100.0,101.5,10.0\n"
        "1764000120,102.0,103.0,101.0,102.5,10.0\n"
    )


async def test_history_prints_the_answer_as_json(relay: StandInRelay) -> None:
    result = await run(relay, "history", "BTCUSDT", "1m", "--limit", "1", "--json")
    values = {"time": START + 180, "open": 103.0, "high": 104.0, "low": 102.0, "close": 103.5, "volume": 10.0}
    answer = {"symbol": "BTCUSDT", "interval": "1m", "candles": [values], "last_is_closed": False}
    assert orjson.loads(result.stdout) == answer


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1764000000", "1764000000"),
        ("2025-11-24", "1763942400"),
        ("2025-11-24T16:00", "1764000000"),
        ("2025-11-24T17:00:00+01:00", "1764000000"),
        ("2025-11-24 16:00:00Z", "1764000000"),
    ],
)
async def test_history_takes_seconds_and_dates(relay: StandInRelay, text: str, seconds: str) -> None:
    assert (await run(relay, "history", "BTCUSDT", "1m", "--start", text)).exit_code == 0
    assert relay.queries[0]["start_time"] == seconds


async def test_history_in_a_terminal_is_a_table(relay: StandInRelay) -> None:
    terminal = Terminal(80)
    await terminal.start(relay, "history", "BTCUSDT", "1m")
    await terminal.wait_for("still open")
    assert await terminal.end() == 0
    assert "2025-11-24 16:03" in terminal.shown
    assert "+0.49%" in terminal.shown


async def test_error_of_the_relay_is_one_line(relay: StandInRelay) -> None:
    detail = "the budget\nis \x1b[2Jused up"
    relay.problem = problem_json(503, "provider_unavailable", detail, **{"Retry-After": "30"})
    result = await run(relay, "history", "BTCUSDT", "1m")
    assert result.exit_code == 1
    assert result.stderr == "Error: the budget�is �[2Jused up (try again in 30 s)\n"


async def test_symbols_prints_one_a_line(relay: StandInRelay) -> None:
    relay.open_market("币安人生USDT@1m")
    result = await run(relay, "symbols", "--asset-class", "crypto")
    assert result.stdout == "BTCUSDT\n币安人生USDT\n"
    assert relay.queries == [{"asset_class": "crypto"}]
    assert orjson.loads((await run(relay, "symbols", "--json")).stdout) == ["BTCUSDT", "币安人生USDT"]


async def test_symbols_are_searched_by_words_and_shown_with_names(relay: StandInRelay) -> None:
    relay.names["BTCUSDT"] = "Bitcoin\x1b[2J"
    relay.open_market("币安人生USDT@1m")
    result = await run(relay, "symbols", "s&p", "500", "--provider", "demo", "--limit", "9")
    assert result.stdout == "BTCUSDT\n币安人生USDT\n"
    assert relay.queries == [{"q": "s&p 500", "provider": "demo", "limit": "9"}]
    assert (await run(relay, "symbols", "--names")).stdout == "BTCUSDT\tBitcoin�[2J\n币安人生USDT\n"
    assert relay.queries[-1] == {}
    assert orjson.loads((await run(relay, "symbols", "btc", "--json")).stdout) == ["BTCUSDT", "币安人生USDT"]
    rows = orjson.loads((await run(relay, "symbols", "--names", "--json")).stdout)
    assert (rows[0]["id"], rows[0]["name"], rows[1]["name"]) == ("demo:BTCUSDT", "Bitcoin\x1b[2J", None)
    assert (await run(relay, "symbols", "--limit", "5001")).exit_code == 2


# -- status ---------------------------------------------------------------------------------------------------------

STATUS = {
    "version": "0.1.0",
    "uptime_s": 4321.5,
    "clients": 3,
    "providers": [{"name": "twelve_data", "title": "Twelve Data", "state": "error", "message": "no key"}],
    "connections": [],
    "streams": [
        {"symbol": "BTCUSDT", "interval": "1m", "provider": "binance", "status": "connected", "message": ""}
        | {"subscribers": 12, "last_update": START, "lag_ms": 43.2, "gaps": 0, "seq": 123456}
    ],
    "budgets": {"per_minute": {"limit": 8, "used": 3}},
    "news": {"nested": [{"deep": True}]},
}


async def test_status_prints_a_summary(relay: StandInRelay) -> None:
    relay.status = STATUS
    lines = (await run(relay, "status")).stdout.splitlines()
    assert lines[:3] == ["version: 0.1.0", "uptime: 1h12m", "clients: 3"]
    assert "connections: none" in lines
    assert "  twelve_data  error  Twelve Data  no key" in lines
    row = next(line for line in lines if "BTCUSDT" in line).split()
    assert row == ["BTCUSDT", "1m", "binance", "connected", "12", "43ms", "2025-11-24T16:00:00Z", "0", "123456"]
    assert "  per_minute  8      3" in lines
    assert lines[lines.index("news, nested:") + 1 :][:2] == ["  deep", "  yes"]


async def test_status_shows_ages_spreads_and_what_is_wrong_first(relay: StandInRelay) -> None:
    live = {"symbol": "A", "status": "connected", "message": "live", "last_update": START + 2.5, "events": [{"n": 1}]}
    stale = {"symbol": "B", "status": "stale", "message": "no data for 90 s", "last_update": START - 90}
    relay.status = {
        "server_time": START + 5,
        "clients": {"connected": 2, "requests": {"subscribe": 3, "ping": 1}, "newest": [{"id": 7, "streams": 1}]},
        "traffic": {"bytes_out": 42_632, "write_delay_ms": {"p50": 0.08, "p99": 23.2}, "loop_lag_ms": None},
        "streams": [live, stale],
        "budgets": [{"name": "credits", "limit": 8, "used": 3, "left": 5, "resets_at": START, "resets_in_s": 55.0}],
    }
    lines = (await run(relay, "status")).stdout.splitlines()
    assert "clients: connected 2, requests subscribe 3 ping 1" in lines
    assert "traffic: bytes_out 42.6kB, write_delay p50 0.1ms p99 23ms" in lines
    streams = lines[lines.index("streams:") + 1 :][:3]
    assert [line.split() for line in streams] == [
        ["symbol", "status", "last_update", "message"],
        ["B", "stale", "1m35s", "no", "data", "for", "90", "s"],
        ["A", "connected", "2.5s"],
    ]
    assert lines[lines.index("budgets:") + 2].split() == ["credits", "5", "8", "55s", "3"]
    assert lines[lines.index("clients, newest:") + 2].split() == ["7", "1"]


def test_value_within_a_value_of_the_status_stands_on_the_same_line() -> None:
    last = {"time": 1_764_000_000.5, "place": "decode (kraken.py, line 68)"}
    told = report._cell("blocked_loop", {"count": 2, "longest_s": 1.5, "last": last})
    assert re.fullmatch(r"count 2 longest 1\.5s time \S+ place decode \(kraken\.py, line 68\)", told)
    assert report._cell("blocked_loop", {"count": 0, "longest_s": 0.0, "last": None}) == ""


@pytest.mark.parametrize("answer", [{}, {"streams": None}, {"providers": [{}]}, {"clients": {"now": 3}}])
async def test_status_takes_an_answer_with_parts_missing(relay: StandInRelay, answer: dict[str, object]) -> None:
    relay.status = answer
    assert (await run(relay, "status")).exit_code == 0
    assert orjson.loads((await run(relay, "status", "--json")).stdout) == answer


@pytest.mark.parametrize("columns", [80, 160])
async def test_status_fits_the_terminal(relay: StandInRelay, columns: int) -> None:
    relay.status = STATUS
    terminal = Terminal(columns)
    await terminal.start(relay, "status")
    await terminal.wait_for("BTCUSDT")
    assert await terminal.end() == 0
    assert ("123456" in terminal.shown) == (columns == 160)


async def test_status_watch_goes_on_while_the_relay_is_away(relay: StandInRelay) -> None:
    relay.status = STATUS
    terminal = Terminal(80)
    await terminal.start(relay, "status", "--watch", "--every", "0.2")
    await terminal.wait_for("0.1.0")
    await relay.stop()
    await terminal.wait_for("the values below are old")
    relay.status = STATUS | {"version": "0.2.0"}
    await relay.start()
    await terminal.wait_for("0.2.0")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.shown


async def test_status_watch_into_a_pipe_repeats_it(relay: StandInRelay) -> None:
    process = await piped(relay, "status", "--watch", "--every", "0.2", "--json")
    assert process.stdout is not None
    for _ in range(2):
        assert orjson.loads(await process.stdout.readline())["version"] == "0.1.0"
    await relay.stop()
    assert process.stderr is not None
    assert b"connection refused" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


# -- help and figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_teaches_by_examples(name: str) -> None:
    text = CliRunner().invoke(GROUP, [name, "--help"]).stdout
    assert text.count(f"\n    relay {name}") >= 2
    assert "RELAY_URL" in text
    assert "RELAY_TOKEN" in text


@pytest.mark.parametrize(
    ("value", "text"), [(1e-07, "0.0000001"), (2.0, "2"), (86_123.45, "86123.45"), (1e16, "10000000000000000")]
)
def test_number_has_no_exponent(value: float, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00001, "<.0001"),
        (0.01234, "0.0123"),
        (12.345, "12.35"),
        (1234.5, "1.23K"),
        (5e6, "5.00M"),
        (3e12, "3.00T"),
    ],
)
def test_volume_is_short(value: float, text: str) -> None:
    assert figures.volume(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.44, "0.4s"), (12, "12s"), (200, "3m20s"), (3600 * 5 + 120, "5h02m"), (86_400 * 4, "4d00h")],
)
def test_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def test_places_show_all_values_and_no_noise() -> None:
    assert figures.places([1.1, 1.0813000000000001, 2.0]) == 4
    assert figures.places([0.00001234]) == 8
    assert figures.places([]) == 0


def test_change_of_nothing_is_none() -> None:
    assert figures.change(1.0, 0.0) == "-"
    assert figures.change(101.0, 100.0) == "+1.00%"
    assert figures.change(5000.0, 1.0) == "+499900%"


def test_moment_out_of_the_calendar_is_shown_as_it_is() -> None:
    assert figures.moment(1e18) == "1e+18"
    assert figures.short_moment(START, "1m") == "16:00:00"
    assert figures.short_moment(START, "1d") == "2025-11-24"


def test_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert figures.sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert figures.sparkline([5, 5]) == "▄▄"
    assert figures.sparkline([]) == ""


def test_json_cannot_steer_the_terminal_and_stays_what_it_is() -> None:
    text = "\x1b[2J\x9b31m\x7f\u202e\u2028\ufeff'\"\\ BTC\u00e9\u5e01"
    line = json_line({"message": text})
    assert orjson.loads(line) == {"message": text}
    assert line.isprintable()
