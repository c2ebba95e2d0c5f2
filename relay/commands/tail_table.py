"""The live table of `relay tail`: what is known of each stream, laid out for the width of the terminal."""

import time
from collections.abc import Callable, Iterable

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from relay.client import Confirmed, Connected, Failure, Lost, Message, Snapshot, State, Update
from relay.commands.formatting import change, duration, fixed, places, printable, short_moment, sparkline, volume
from relay.commands.narrow_table import narrowed
from relay.commands.run_client import in_words_of_the_command
from relay.core.model import Candle, StreamKey

# So many closes does a sparkline show at most.
CLOSES = 60

_WIDE = 132
_NARROW = 80
_LEAST_SYMBOL = 10
_COLOURS = {
    "connected": "green",
    "connecting": "yellow",
    "reconnecting": "yellow",
    "backfilling": "cyan",
    "stale": "yellow",
    "market_closed": "blue",
    "throttled": "magenta",
    "error": "bold red",
    "refused": "bold red",
    "offline": "bold red",
}
_WORDS = {"connected": "live", "market_closed": "market closed"}
_NOTES = 3


class Closes:
    """Recent closes as a sparkline that takes the width it gets."""

    def __init__(self, values: list[float]) -> None:
        self._values = values

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._values[-options.max_width :]
        is_ascii = not options.encoding.lower().startswith("utf")
        rises = bool(shown) and shown[-1] >= shown[0]
        yield Text(sparkline(shown, is_ascii=is_ascii), "green" if rises else "red", no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(4, options.max_width), min(max(6, len(self._values)), options.max_width))


class TailRow:
    """What is known of one stream."""

    def __init__(self, key: StreamKey) -> None:
        self.key = key
        self.status = "connecting"
        self.message = ""
        self.candle: Candle | None = None
        self.is_closed = False
        self.updated_at: float | None = None
        self.closes: dict[int, float] = {}
        self.decimals = 0

    def add(self, candle: Candle, now: float, *, is_closed: bool) -> None:
        """Take the newest state of a candle; a revised older one changes the sparkline only."""
        self.decimals = max(self.decimals, places(candle[1:5]))
        if self.candle is None or candle.time >= self.candle.time:
            self.candle, self.is_closed, self.updated_at = candle, is_closed, now
            self.closes[candle.time] = candle.close
            while len(self.closes) > CLOSES:
                del self.closes[next(iter(self.closes))]
        elif candle.time in self.closes:
            self.closes[candle.time] = candle.close


def is_asked_as(asked: StreamKey, key: StreamKey, provider: str) -> bool:
    """Say whether a stream was asked for by its name, or by that with the provider in front."""
    names = (key.symbol.lower(), f"{provider}:{key.symbol}".lower())
    return asked.symbol.lower() in names and asked.interval == key.interval


class TailTable:
    """Takes the messages of the client and draws them; never blocks and holds one row a stream."""

    def __init__(self, address: str, keys: Iterable[StreamKey], monotonic: Callable[[], float] | None = None) -> None:
        self._address = address
        self._monotonic = monotonic or time.monotonic
        # In the order asked for, whichever is heard of first; by the name that the relay confirmed, once it did.
        self._rows = {key: TailRow(key) for key in keys}
        self._lost = ""
        self._retry_at = 0.0
        self._is_connected = False

    def take(self, message: Message) -> None:
        """Remember what a message says."""
        match message:
            case Connected():
                self._is_connected, self._lost = True, ""
            case Lost(reason=reason, retry_in_s=retry_in_s):
                self._is_connected, self._lost = False, reason
                self._retry_at = self._monotonic() + retry_in_s
            case Confirmed(key=key, action="subscribe", provider=provider):
                self._rename(key, provider)
                self._set_state(key, "connected", "")
            case State(key=key, status=status, message=text):
                self._set_state(key, status, text)
            case Failure(key=StreamKey() as key, message=text, is_retried=is_retried):
                self._set_state(key, "connecting" if is_retried else "refused", text)
            case Snapshot(key=key, candles=candles, last_is_closed=last_is_closed):
                row, now = self._row(key), self._monotonic()
                for position, candle in enumerate(candles, 1):
                    row.add(candle, now, is_closed=last_is_closed or position < len(candles))
            case Update(key=key, candle=candle, is_closed=is_closed):
                self._row(key).add(candle, self._monotonic(), is_closed=is_closed)
            case _:
                pass

    def _rename(self, key: StreamKey, provider: str) -> None:
        """Keep the row of a stream where it was first asked for, though by its name with the provider in front."""
        rows: dict[StreamKey, TailRow] = {}
        for asked, row in self._rows.items():
            row.key = key if is_asked_as(asked, key, provider) else asked
            rows.setdefault(row.key, row)
        self._rows = rows

    def _row(self, key: StreamKey) -> TailRow:
        return self._rows.setdefault(key, TailRow(key))

    def _set_state(self, key: StreamKey, status: str, text: str) -> None:
        row = self._row(key)
        row.status, row.message = status, text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = console.height if options.height is None else options.height
        yield self.draw(options.max_width, height)

    def draw(self, width: int, height: int) -> Group:
        """Return the picture: all columns where they fit, else two lines a stream, else the most important columns."""
        rows = list(self._rows.values())
        texts = [
            in_words_of_the_command(f"{row.key} {_word(row.status)}: {row.message}")
            for row in rows
            if row.message and row.status != "connected"
        ]
        notes = [Text(text, "dim", no_wrap=True, overflow="ellipsis") for text in texts]
        if len(notes) > _NOTES:
            notes = [*notes[: _NOTES - 1], Text(f"and {len(notes) - _NOTES + 1} more streams that are not live", "dim")]
        # One line each for the title, the head, the cursor, and the columns that are left out.
        room = max(1, height - 3 - len(notes) - (width < _NARROW))
        if width >= _WIDE:
            shown, table = rows[:room], self._wide
        elif 2 * len(rows) <= room - 1:
            shown, table = rows, self._stacked
        else:
            shown, table = rows[:room], self._compact
        if len(shown) < len(rows):
            shown = rows[: room - 1]
            notes.insert(0, Text(f"… {len(rows) - len(shown)} more streams; a taller window shows them", "dim"))
        pictures = narrowed(table(shown), width, _LEAST_SYMBOL) if shown else ()
        return Group(self._title(), *pictures, *notes)

    def _title(self) -> Text:
        title = Text(no_wrap=True, overflow="ellipsis")
        title.append("relay ", "bold").append(f"{self._address} ")
        if self._is_connected:
            return title.append("connected", "green").append("  Ctrl-C ends", "dim")
        if self._lost:
            left_s = max(0.0, self._retry_at - self._monotonic())
            title.append("offline", "bold red")
            return title.append(f"  next attempt in {left_s:.0f} s" if left_s else "  connecting", "dim")
        return title.append("connecting", "yellow")

    # -- layouts ----------------------------------------------------------------------------------------------------

    def _wide(self, rows: list[TailRow]) -> Table:
        table = _table("Symbol", "", "State", "Time", ">Open", ">High", ">Low", ">Close", ">Change", ">Volume", ">Age")
        for row in rows:
            open_, high, low, close = _prices(row)
            cells = (_time(row), open_, high, low, close, _change(row), _volume(row), self._age(row))
            table.add_row(_symbol(row), row.key.interval, self._state(row), *cells, Closes([*row.closes.values()]))
        return table

    def _stacked(self, rows: list[TailRow]) -> Table:
        table = _table("Stream", "Time\nAge", ">Close\nOpen", ">High\nLow", ">Change\nVolume")
        for row in rows:
            open_, high, low, close = _prices(row)
            table.add_row(
                _over(_symbol(row).append(f" {row.key.interval}", "dim"), self._state(row)),
                _over(_time(row), self._age(row)),
                _over(close, open_),
                _over(high, low),
                _over(_change(row), _volume(row)),
                Closes([*row.closes.values()]),
            )
        return table

    def _compact(self, rows: list[TailRow]) -> Table:
        table = _table("Symbol", "", "State", "Time", ">Close", ">Change", ">Volume", ">Age")
        for row in rows:
            cells = (_time(row), _prices(row)[3], _change(row), _volume(row), self._age(row))
            table.add_row(_symbol(row), row.key.interval, self._state(row), *cells, Closes([*row.closes.values()]))
        return table

    def _state(self, row: TailRow) -> Text:
        status = row.status if self._is_connected or row.status == "refused" else "offline"
        return Text(f"● {_word(status)}", _COLOURS.get(status, "yellow"), no_wrap=True)

    def _age(self, row: TailRow) -> Text:
        return Text("" if row.updated_at is None else duration(self._monotonic() - row.updated_at), "dim")


def _table(*heads: str) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, collapse_padding=True, padding=(0, 1), header_style="bold dim")
    for position, head in enumerate(heads):
        name = head.lstrip(">")
        table.add_column(
            name,
            justify="right" if head.startswith(">") else "left",
            no_wrap=True,
            # The symbol gives way first in a narrow window, then whole columns; a figure cut short would be wrong.
            overflow="ellipsis" if position == 0 else "crop",
            min_width=None if position == 0 else len(name.partition("\n")[0]),
        )
    table.add_column("Recent closes", no_wrap=True, overflow="crop", ratio=1)
    return table


def _word(status: str) -> str:
    return _WORDS.get(status, printable(status)[:14])


def _over(upper: Text, lower: Text) -> Text:
    return Text("\n").join((upper, lower))


def _symbol(row: TailRow) -> Text:
    return Text(printable(row.key.symbol), "bold")


def _time(row: TailRow) -> Text:
    if row.candle is None:
        return Text("")
    return Text(short_moment(row.candle.time, row.key.interval), "" if row.is_closed else "italic")


def _prices(row: TailRow) -> tuple[Text, Text, Text, Text]:
    if row.candle is None:
        return Text(""), Text(""), Text(""), Text("")
    open_, high, low, close = (fixed(price, row.decimals) for price in row.candle[1:5])
    return Text(open_), Text(high), Text(low), Text(close, f"bold {_colour(row)}".strip())


def _change(row: TailRow) -> Text:
    return Text("") if row.candle is None else Text(change(row.candle.close, row.candle.open), _colour(row))


def _volume(row: TailRow) -> Text:
    return Text("" if row.candle is None else volume(row.candle.volume))


def _colour(row: TailRow) -> str:
    if row.candle is None or row.candle.close == row.candle.open:
        return ""
    return "green" if row.candle.close > row.candle.open else "red"
