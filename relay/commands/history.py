"""`relay history`: candles of a running relay as a table, lines, CSV or JSON."""

from datetime import UTC, datetime

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.client import History, RelayClient
from relay.commands.calling import call, relay_options, shows_table
from relay.commands.figures import change, fixed, moment, number, places, printable, volume

_LATEST = 253_402_300_799


def _moment(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        if int(text) > _LATEST:
            raise click.BadParameter(f"{text} is too large for Unix seconds; leave out the milliseconds")
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither Unix seconds nor a date such as 2025-11-24 or 2025-11-24T16:00"
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


@click.command("history")
@click.argument("symbol")
@click.argument("interval")
@click.option(
    "--start", callback=_moment, metavar="TIME", help="First open time: Unix seconds or an ISO date or time (UTC)."
)
@click.option("--end", callback=_moment, metavar="TIME", help="Last open time, included; as --start.")
@click.option("--limit", type=click.IntRange(1, 5000), help="At most so many candles.  [default: the relay's, 500]")
@click.option("--csv", "form", flag_value="csv", help="Print CSV with a header; time is Unix seconds.")
@click.option("--json", "form", flag_value="json", help="Print the relay's answer as JSON.")
@relay_options
def command(
    symbol: str,
    interval: str,
    start: int | None,
    end: int | None,
    limit: int | None,
    form: str | None,
    url: str,
    token: str | None,
) -> None:
    """Print candles of SYMBOL at INTERVAL, oldest first.

    With --start, the first candles from there on; without, the last ones up to --end or now. The last candle may be
    open. A terminal gets a table; a pipe gets lines of time, open, high, low, close, volume and open or closed,
    separated by tabs.

    \b
    Examples:
      relay history BTCUSDT 1h --limit 24
      relay history EUR/USD 1d --start 2025-01-01 --end 2025-03-31
      relay history BTCUSDT 1m --limit 5000 --csv > btc.csv
    """
    if start is not None and end is not None and start > end:
        raise click.UsageError("--start is later than --end")

    async def work(client: RelayClient) -> None:
        answer = await client.history(symbol, interval, start_time=start, end_time=end, limit=limit)
        if form == "json":
            click.echo(orjson.dumps(answer.wire))
        elif form == "csv":
            click.echo("\n".join(["time,open,high,low,close,volume,is_closed", *_lines(answer, ",", is_csv=True)]))
        elif shows_table():
            Console().print(_table(answer))
        elif answer.candles:
            click.echo("\n".join(_lines(answer, "\t", is_csv=False)))

    call(url, token, work)


def _lines(answer: History, separator: str, *, is_csv: bool) -> list[str]:
    words = ("false", "true") if is_csv else ("open", "closed")
    lines = []
    for position, candle in enumerate(answer.candles, 1):
        is_closed = answer.last_is_closed or position < len(answer.candles)
        time = str(candle.time) if is_csv else moment(candle.time)
        lines.append(separator.join([time, *map(number, candle[1:]), words[is_closed]]))
    return lines


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
