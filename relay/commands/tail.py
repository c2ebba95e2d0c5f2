"""`relay tail`: follow streams of a running relay as a live table, as lines or as JSON."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from relay.client import (
    Confirmed,
    Connected,
    Failure,
    Gap,
    Lost,
    Message,
    Outdated,
    RelayClient,
    Snapshot,
    State,
    Update,
    parse_stream,
)
from relay.commands.formatting import json_line, moment, number, printable
from relay.commands.run_client import call, in_words_of_the_command, relay_options, shows_table
from relay.commands.tail_table import CLOSES, TailTable, is_asked_as
from relay.core.model import Candle, StreamKey

_REDRAW_S = 0.125
_ORDER_WAIT_S = 1.0
# A table drawn eight times a second has no use for more.
_TABLE_THROTTLE_MS = 100


def _check_streams(context: click.Context, argument: click.Parameter, value: tuple[str, ...]) -> list[StreamKey]:
    try:
        return [parse_stream(name) for name in value]
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from None


@click.command("tail", short_help="Follow streams of a running relay in the terminal.")
@click.argument("streams", metavar="STREAM...", nargs=-1, required=True, callback=_check_streams)
@click.option("--bars", type=click.IntRange(0, 5000), help="Start with the last N candles, including the open one.")
@click.option("--closed-only", is_flag=True, help="Closed candles only.")
@click.option("--count", type=click.IntRange(min=1), help="End after N updates; the candles of --bars do not count.")
@click.option("--json", "as_json", is_flag=True, help="Print the relay's messages, one JSON object a line.")
@click.option("--extended", is_flag=True, help="Candles with quote volume, trades and what takers bought; with --json.")
@relay_options
def command(
    streams: list[StreamKey],
    bars: int | None,
    closed_only: bool,
    count: int | None,
    as_json: bool,
    extended: bool,
    url: str,
    token: str | None,
) -> None:
    """Follow streams such as BTCUSDT@1m (symbol@interval) of a running relay until Ctrl-C.

    A terminal shows a live table; change is that of the candle since its open, age is the time since the last update,
    times are UTC. A pipe gets one line an update: time, stream, open, high, low, close, volume, and open or closed
    (then backfilled or revised where it applies), separated by tabs.

    With --bars the candles come in the order of the streams; a stream that is late by a second comes later.

    A lost connection is opened again and goes on where it stopped: every closed candle comes once and in order. Losses
    and gaps are told on stderr.

    \b
    Examples:
      relay tail BTCUSDT@1s ETHUSDT@1m EUR/USD@1m
      relay tail BTCUSDT@1m --bars 100 --closed-only >> candles.tsv
      relay tail BTCUSDT@1m --json --count 10 | jq .candle.close
    """

    if extended and not as_json:
        raise click.UsageError("--extended needs --json")

    async def work(client: RelayClient) -> None:
        if as_json or not shows_table():
            await client.subscribe(*streams, bars=bars, closed_only=closed_only, extended=extended)
            messages = in_order(client, streams) if bars else client
            show = _print_json if as_json else _print_lines
            await _follow(client, messages, show, count, tells_states=not as_json)
            return
        first = CLOSES if bars is None else bars
        await client.subscribe(*streams, bars=first, closed_only=closed_only, throttle_ms=_TABLE_THROTTLE_MS)
        await _follow_in_table(client, streams, count)

    call(url, token, work)


async def in_order(client: AsyncIterator[Message], streams: list[StreamKey]) -> AsyncIterator[Message]:
    """Yield the messages of a client, first the past of each stream in the order of the streams.

    What a stream says waits for the past of those before it, `_ORDER_WAIT_S` at most.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + _ORDER_WAIT_S
    held: dict[StreamKey, list[Message]] = {key: [] for key in streams}
    begun: set[StreamKey] = set()
    while held and (left_s := until - clock()) > 0:
        try:
            message = await asyncio.wait_for(anext(client), left_s)
        except (TimeoutError, StopAsyncIteration):
            break
        key = getattr(message, "key", None)
        if isinstance(message, Confirmed):
            # By the name that the relay confirms from here on.
            provider, confirmed = message.provider, message.key
            held = {confirmed if is_asked_as(asked, confirmed, provider) else asked: held[asked] for asked in held}
        if key not in held:
            yield message
            continue
        held[key].append(message)
        if isinstance(message, Snapshot | Failure):
            begun.add(key)
        while held and (first := next(iter(held))) in begun:
            for one in held.pop(first):
                yield one
    for waiting in held.values():
        for one in waiting:
            yield one
    async for message in client:
        yield message


async def _follow(
    client: RelayClient,
    messages: AsyncIterator[Message],
    show: Callable[[Message], None],
    count: int | None,
    *,
    tells_states: bool,
) -> None:
    updates = 0
    is_lost = False
    async for message in messages:
        show(message)
        if isinstance(message, Failure) and not client.streams:
            raise click.ClickException(in_words_of_the_command(message.message))
        notice = _notice(message, is_lost=is_lost, tells_states=tells_states)
        is_lost = isinstance(message, Lost) or (is_lost and not isinstance(message, Connected))
        if notice:
            # Not click's echo: it would pass by the live table, which puts this line above itself.
            print(f"relay: {in_words_of_the_command(notice)}", file=sys.stderr, flush=True)
        updates += isinstance(message, Update)
        if updates == count:
            return


async def _follow_in_table(client: RelayClient, streams: list[StreamKey], count: int | None) -> None:
    table = TailTable(str(client.url), streams)
    # What goes to stderr appears above the table, unless it goes elsewhere.
    redirects = sys.stderr.isatty()
    with Live(table, console=Console(), auto_refresh=False, redirect_stderr=redirects) as live:

        async def redraw() -> None:
            while True:
                live.refresh()
                await asyncio.sleep(_REDRAW_S)

        drawing = asyncio.create_task(redraw())
        try:
            await _follow(client, client, table.take, count, tells_states=False)
        finally:
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing
            live.refresh()


def _notice(message: Message, *, is_lost: bool, tells_states: bool) -> str:
    match message:
        case Lost(reason=reason, retry_in_s=retry_in_s):
            return f"{reason}; next attempt in {retry_in_s:.0f} s"
        case Connected() if is_lost:
            return "connected again"
        case Failure(key=key, message=text, is_retried=is_retried):
            return f"{f'{key}: ' if key else ''}{text}{'; will be asked again' if is_retried else ''}"
        case Gap(key=key, start=start, end=end, reason=reason):
            return f"{key}: candles from {moment(start)} to {moment(end)} are missing: {reason}"
        case Outdated(key=key, before=before, wire={"reason": str(reason)}):
            return f"{key}: {reason}: candles before {moment(before)} have other values now"
        case Outdated(key=key, before=before):
            return (
                f"{key}: candles before {moment(before)} may have been revised meanwhile; the relay does not know which"
            )
        case State(key=key, status=status, message=text) if tells_states:
            return f"{key}: {status}{f': {text}' if text else ''}"
        case _:
            return ""


def _print_json(message: Message) -> None:
    # A loss is the client's own message; it goes to stderr.
    if not isinstance(message, Lost):
        click.echo(json_line(message.wire))


def _print_lines(message: Message) -> None:
    for line in _lines(message):
        click.echo(line)


def _lines(message: Message) -> Iterator[str]:
    match message:
        case Update(key=key, candle=candle, is_closed=is_closed):
            mark = "closed" if is_closed else "open"
            mark += " backfilled" if message.is_backfilled else ""
            mark += " revised" if message.is_revised else ""
            yield _line(key, candle, mark)
        case Snapshot(key=key, candles=candles, last_is_closed=last_is_closed):
            for position, candle in enumerate(candles, 1):
                yield _line(key, candle, "closed" if last_is_closed or position < len(candles) else "open")
        case _:
            pass


def _line(key: StreamKey, candle: Candle, mark: str) -> str:
    return "\t".join([moment(candle.time), printable(str(key)), *map(number, candle[1:]), mark])
