"""Candles of ticks computed by a database instead of by the relay, and the tick files that tests read."""

import csv
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from relay.core.candle_builder import CandleBuilder
from relay.core.model import Candle

DATA = Path(__file__).parents[1] / "data" / "ticks"

_OPENED = {
    "1m": "strftime('%Y-%m-%d %H:%M:00', at)",
    "1h": "strftime('%Y-%m-%d %H:00:00', at)",
    "1d": "strftime('%Y-%m-%d 00:00:00', at)",
    "1w": "strftime('%Y-%m-%d 00:00:00', at, '-6 days', 'weekday 1')",
    "1M": "strftime('%Y-%m-01 00:00:00', at)",
    "5m": "strftime('%Y-%m-%d %H:', at) || substr('0' || (strftime('%M', at) - strftime('%M', at) % 5), -2) || ':00'",
    "4h": "strftime('%Y-%m-%d ', at) || substr('0' || (strftime('%H', at) - strftime('%H', at) % 4), -2) || ':00:00'",
}


class Tick(NamedTuple):
    """A price with its stamp and the moment when it came in, in Unix milliseconds."""

    arrived_ms: int
    stamp_ms: int
    price: float


def candles_by_sql(ticks: Iterable[Tick], interval: str) -> list[Candle]:
    """Group ticks by the calendar of the database; those with the same stamp count in order of arrival."""
    rows = (
        (number, tick.stamp_ms, f"{datetime.fromtimestamp(tick.stamp_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}", tick.price)
        for number, tick in enumerate(ticks)
    )
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE tick (number INTEGER, stamp INTEGER, at TEXT, price REAL)")
        database.executemany("INSERT INTO tick VALUES (?, ?, ?, ?)", rows)
        found = database.execute(
            f"""
            WITH cut AS (SELECT *, {_OPENED[interval]} AS opened FROM tick)
            SELECT DISTINCT CAST(strftime('%s', opened) AS INTEGER), first_value(price) OVER early,
                max(price) OVER whole, min(price) OVER whole, first_value(price) OVER late
            FROM cut
            WINDOW whole AS (PARTITION BY opened),
                early AS (PARTITION BY opened ORDER BY stamp, number),
                late AS (PARTITION BY opened ORDER BY stamp DESC, number DESC)
            ORDER BY opened
            """
        ).fetchall()
    database.close()
    return [Candle(*row) for row in found]


def candles_by_builder(
    ticks: Iterable[Tick], interval: str, grace_s: float, is_open: Callable[[int], bool] | None = None
) -> list[Candle]:
    """Let the relay's builder have the ticks as they come in; return what it closes."""
    builder = CandleBuilder(interval, 0, grace_s=grace_s, is_open=is_open)
    built = [one for tick in ticks for one in builder.add(tick.stamp_ms / 1000, tick.price, now=tick.arrived_ms / 1000)]
    built += builder.advance(float("inf"))
    return [one.candle for one in built if one.is_closed]


def read_ticks(path: Path) -> list[Tick]:
    """Read our own tick files: `arrived_ms,stamp_ms,price`, in order of arrival."""
    with path.open(newline="") as file:
        return [Tick(int(row[0]), int(row[1]), float(row[2])) for row in csv.reader(file)]


def read_candles(path: Path) -> list[Candle]:
    """Read our own candle files: `time,open,high,low,close`."""
    with path.open(newline="") as file:
        return [Candle(int(row[0]), *map(float, row[1:])) for row in csv.reader(file)]


def read_quotes(path: Path) -> list[Tick]:
    """Read recorded quotes `YYYYMMDD HHMMSSmmm,bid,ask,0`, New York without summer time; the bid is the price."""
    with path.open(newline="") as file:
        moments = [(datetime.strptime(row[0], "%Y%m%d %H%M%S%f"), float(row[1])) for row in csv.reader(file)]
    stamps = [(round((at + timedelta(hours=5)).replace(tzinfo=UTC).timestamp() * 1000), price) for at, price in moments]
    return [Tick(stamp, stamp, price) for stamp, price in stamps]
