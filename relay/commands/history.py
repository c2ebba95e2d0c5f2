"""`relay history`: candles of a running relay as a table, lines, CSV or JSON; on a screen or in a file."""

import fcntl
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.client import History, RelayClient
from relay.commands.candle_writer import (
    COMPARED,
    RESUMABLE,
    CandleWriter,
    Earlier,
    closed_of,
    for_its_owner,
    is_ours,
    read_earlier,
)
from relay.commands.completion import completes
from relay.commands.download import MOST_BACKWARDS, metered, pages
from relay.commands.formatting import change, fixed, moment, places, printable, volume
from relay.commands.narrow_table import narrowed
from relay.commands.run_client import INTERRUPTED, TERMINATED, call, relay_options, shows_table
from relay.commands.time_option import moment_option
from relay.core.intervals import INTERVALS


@click.command("history")
@click.argument("symbol")
@click.argument("interval", shell_complete=completes(INTERVALS))
@click.option(
    "--start",
    callback=moment_option,
    metavar="TIME",
    help="First open time: Unix seconds or an ISO date or time (UTC).",
)
@click.option("--end", callback=moment_option, metavar="TIME", help="Last open time, inclusive; written as --start.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000_000),
    metavar="N",
    help="Maximum number of candles.  [default: all from --start on; 500 without --start]",
)
@click.option(
    "--csv",
    "is_csv",
    is_flag=True,
    help="Print CSV with a header, as format=csv over HTTP: closed candles only, time in Unix seconds.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the answer of the relay, one JSON object.")
@click.option("--ndjson", "is_ndjson", is_flag=True, help="Print one JSON object per candle, one per line.")
@click.option(
    "--extended",
    is_flag=True,
    help="Also quote volume, number of trades and what takers bought, with --csv, --json or --ndjson.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write to this file.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the file --output (CSV or newline-delimited JSON); it must contain this stream from --start on.",
)
@click.option("--force", is_flag=True, help="Overwrite --output even if another program wrote it.")
@relay_options
def command(
    symbol: str,
    interval: str,
    start: int | None,
    end: int | None,
    limit: int | None,
    is_csv: bool,
    is_json: bool,
    is_ndjson: bool,
    extended: bool,
    output: Path | None,
    resume: bool,
    force: bool,
    url: str,
    token: str | None,
) -> None:
    """Print candles of SYMBOL at INTERVAL, oldest first.

    With --start: all candles from there on. Without: the last ones up to --end or now. The last candle may be open. A
    terminal shows a table; a pipe gets lines of time, open, high, low, close, volume and open or closed, separated by
    tabs. Large ranges are fetched page by page, with a progress bar if the output is a file or a pipe.

    \b
    Examples:
      relay history BTCUSDT 1h --limit 24
      relay history EUR/USD 1d --start 2025-01-01 --end 2025-03-31
      relay history BTCUSDT 1h --limit 24 --csv --extended
      relay history BTCUSDT 1m --start 2024-01-01 --csv --output btc.csv
      relay history BTCUSDT 1m --start 2024-01-01 --csv --output btc.csv --resume
    """
    forms = [name for name, is_given in (("csv", is_csv), ("json", is_json), ("ndjson", is_ndjson)) if is_given]
    if len(forms) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in forms)} exclude each other")
    form = forms[0] if forms else None
    if extended and form is None:
        raise click.UsageError("--extended needs --csv, --json or --ndjson")
    if start is not None and end is not None and start > end:
        raise click.UsageError("--start is later than --end")
    if start is None and limit is not None and limit > MOST_BACKWARDS:
        raise click.UsageError(f"--limit above {MOST_BACKWARDS:,} needs --start")
    earlier = _earlier(start, output, form, extended) if resume else None
    if output is not None and not resume and not force:
        _check_own(output)
    last: int | None = None
    count = 0

    async def work(client: RelayClient) -> None:
        nonlocal start, last, count
        if earlier is not None and earlier.candles:
            await _check_stream(client, symbol, interval, output, earlier)
            await _check_start(client, symbol, interval, output, start, earlier.first_open)
            start = earlier.candles[-1].time + 1
            if end is not None and start > end:
                return
        is_csv = form == "csv"
        found = pages(
            client, symbol, interval, start=start, end=end, limit=limit, extended=extended, counts_closed=is_csv
        )
        async with aclosing(found):
            if form is None and output is None and shows_table():
                await _show(found)
                return
            is_shown = output is not None or not sys.stdout.isatty()
            size = 0 if earlier is None else earlier.size
            # A file is made, or what was in it lost, only when there is something to write.
            page: History | None = await anext(found)
            with _opened(output, size) as file, metered(start, end, is_shown=is_shown) as meter:
                writer = CandleWriter(file, form or "lines", has_begun=size > 0, extended=extended)
                while page is not None:
                    writer.write(page)
                    meter.advance(page)
                    count += len(closed_of(page))
                    last = max((candle.time for candle in closed_of(page)), default=last)
                    page = await anext(found, None)
                writer.close()

    try:
        call(url, token, work)
    except (SystemExit, click.ClickException) as end:
        if isinstance(end, click.ClickException) or end.code in (INTERRUPTED, TERMINATED):
            if last is not None:
                left = None if limit is None else limit - count
                _say_how_to_go_on(last, output, form, start, left)
            elif isinstance(end, SystemExit):
                click.echo("relay: interrupted before the first candles came; nothing is written", err=True)
        raise


def _check_own(output: Path) -> None:
    with suppress(OSError):  # What cannot be read is said when it cannot be written.
        if output.is_file() and not is_ours(output):
            raise click.ClickException(
                f"{output} exists, and this command did not write it; use --force to overwrite it"
            )


def _say_how_to_go_on(last: int, output: Path | None, form: str | None, start: int | None, left: int | None) -> None:
    where = "" if output is None else f" in {output}"
    if output is not None and form in RESUMABLE and start is not None:
        way, end = "--resume", ""
    else:
        # The same command would write over the file.
        way, end = f"--start {last + 1}", "" if output is None else " and another file"
    if left is not None:
        way += f" --limit {max(1, left)}"
    cut = "; the JSON is not complete" if form == "json" else ""
    click.echo(
        f"relay: interrupted; candles up to {moment(last)} are written{where}; continue with {way}{end}{cut}",
        err=True,
    )


def _earlier(start: int | None, output: Path | None, form: str | None, extended: bool) -> Earlier | None:
    if output is None or form not in RESUMABLE or start is None:
        raise click.UsageError("--resume needs --start, --output and --csv or --ndjson")
    try:
        return read_earlier(output, form, extended=extended)
    except (ValueError, OSError) as error:
        raise click.ClickException(f"{output} cannot be continued: {error}") from None


async def _check_stream(client: RelayClient, symbol: str, interval: str, output: Path | None, earlier: Earlier) -> None:
    """Refuse a file of another stream: neither its name nor its form says of which it is, but its candles do."""
    first, last = earlier.candles[0].time, earlier.candles[-1].time
    answer = await client.history(symbol, interval, start_time=first, end_time=last, limit=2 * COMPARED)
    if not earlier.is_of(answer):
        stream = printable(f"{answer.symbol}@{answer.interval}")
        raise click.ClickException(
            f"{output} cannot be continued: its candles from {moment(first)} to {moment(last)} are not those of "
            f"{stream}; use another file, or overwrite this one without --resume"
        )


async def _check_start(
    client: RelayClient, symbol: str, interval: str, output: Path | None, start: int | None, first: int | None
) -> None:
    """Refuse a file that lacks candles between `--start` and its first one: it is gone on with only at its end."""
    if start is None or first is None or start >= first:
        return
    answer = await client.history(symbol, interval, start_time=start, end_time=first - 1, limit=1)
    if answer.candles:
        raise click.ClickException(
            f"{output} cannot be continued: it begins at {moment(first)}, but there are candles from "
            f"{moment(answer.candles[0].time)} on; write those to another file with --end {moment(first - 1)}, or "
            "overwrite this one without --resume"
        )


@contextmanager
def _opened(output: Path | None, size: int) -> Iterator[BinaryIO]:
    """Open the file behind so many bytes, which are kept; the rest is cut off. It is for this process alone."""
    if output is None:
        yield sys.stdout.buffer
        return
    try:
        # Nothing is cut off before it is known that nobody writes there; what is written comes last in any case.
        with open(output, "ab", opener=for_its_owner) as file:
            if not _is_ours(file):
                raise click.ClickException(f"{output} is being written by another process; wait until it ends")
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate(size)
            yield file
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from None


def _is_ours(file: BinaryIO) -> bool:
    """Say whether nobody else writes to a file from now on until it is closed, where its file system has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


async def _show(found: AsyncIterator[History]) -> None:
    """Print one page as a table; more would be no table that anybody reads."""
    first = await anext(aiter(found))
    second = await anext(aiter(found), None)
    if second is None:
        console = Console()
        console.print(*narrowed(_table(first), console.width), sep="\n")
        return
    writer = CandleWriter(sys.stdout.buffer, "lines")
    writer.write(first)
    writer.write(second)
    async for page in found:
        writer.write(page)
    writer.close()


def _table(answer: History) -> Table:
    title = printable(f"{answer.symbol}@{answer.interval}")
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, pad_edge=False)
    table.add_column("Time (UTC)", no_wrap=True)
    for name in ("Open", "High", "Low", "Close", "Change", "Volume"):
        table.add_column(name, justify="right", no_wrap=True)
    times = [moment(candle.time).replace("T", " ").removesuffix("Z") for candle in answer.candles]
    if all(time.endswith(":00") for time in times):
        times = [time.removesuffix(":00") for time in times]
    decimals = places(price for candle in answer.candles for price in candle[1:5])
    for position, (time, candle) in enumerate(zip(times, answer.candles, strict=True), 1):
        is_open = position == len(answer.candles) and not answer.last_is_closed
        colour = "green" if candle.close > candle.open else "red" if candle.close < candle.open else ""
        table.add_row(
            time,
            *(fixed(price, decimals) for price in candle[1:4]),
            Text(fixed(candle.close, decimals), colour),
            Text(change(candle.close, candle.open), colour),
            volume(candle.volume),
            style="italic" if is_open else "",
        )
    if answer.candles and not answer.last_is_closed:
        table.caption = "the last candle is still open"
    if not answer.candles:
        table.caption = "no candles in this range"
    return table
