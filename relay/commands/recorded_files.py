"""Files of recorded candles as `relay history` writes them, and with a few more columns; each line is judged."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import orjson

from relay.core.errors import ConfigError, RequestError
from relay.core.intervals import INTERVALS, parse_interval
from relay.core.model import EXTRA_FIELDS, Candle, CandleExtras, ProviderInfo, StreamKey, extend
from relay.plugins.hookspecs import API_VERSION
from relay.plugins.validation import CandleValidator
from relay.protocol.fields import shown
from relay.protocol.symbol_names import SPELLING, is_symbol

PROVIDER = "replay"
"""The provider of candles of which a file does not say another one."""
_PRICES = ("time", "open", "high", "low", "close")
_NUMBERS = ("volume", *EXTRA_FIELDS)
_STREAM = ("symbol", "interval", "provider")
COLUMNS = (*_PRICES, *_NUMBERS, *_STREAM)
_IS_CLOSED = "is_closed"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_NAMED = re.compile(r"(?P<stream>[^@=]+(=[^@=]+)?@[0-9a-zA-Z]+)=(?P<path>.+)", re.DOTALL)
_MOST_CHARACTERS = 4096
_MOST_SAID = 200
_SQLITE = b"SQLite format 3\0"
_GZIP = b"\x1f\x8b"
_MILLISECONDS = 10**11


class RecordedFile(NamedTuple):
    """A file as a flag names it: with the stream of its candles, if the file does not say it."""

    path: Path
    provider: str = PROVIDER
    key: StreamKey | None = None

    @property
    def is_database(self) -> bool:
        """Whether it is a database. Raises `ConfigError` if it cannot be read."""
        return _begin_of(self.path) == _SQLITE


def recorded_file(text: str) -> RecordedFile:
    """Return the file that a flag names: `FILE`, or `SYMBOL@INTERVAL=FILE`. Raises `ConfigError`."""
    path = Path(text)
    named = None if path.is_file() else _NAMED.fullmatch(text)
    if named is None:
        return RecordedFile(path)
    name, _, interval = named["stream"].rpartition("@")
    provider, colon, symbol = name.partition(":")
    if not colon or not _NAME.fullmatch(provider):
        provider, symbol = PROVIDER, name
    try:
        return RecordedFile(Path(named["path"]), provider, _key_of(symbol, interval))
    except ValueError as error:
        raise ConfigError(f"--replay {shown(text)}: {error}") from None


def candles_of(files: Iterable[RecordedFile]) -> Iterator[tuple[str, StreamKey, Candle]]:
    """Yield the candles of files, each with its provider and stream; those of one stream in order, none twice.

    Raises `ConfigError` that names the file, the line and what is wrong with it.
    """
    newest: dict[tuple[str, StreamKey], int] = {}
    for file in files:
        for number, record in _records(file.path):
            if record.get(_IS_CLOSED) in (False, "false"):
                # The last line of what `relay history --ndjson` wrote.
                continue
            try:
                yield _judged(record, file, newest)
            except ValueError as error:
                raise ConfigError(f"{file.path}, line {number}: {error}") from None


def _begin_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"--replay {path}: {reason}; name a CSV or NDJSON file, or the database of a relay") from None


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    is_packed = _begin_of(path).startswith(_GZIP)
    with gzip.open(path, "rt", encoding="utf-8") if is_packed else path.open(encoding="utf-8") as file:
        try:
            yield file
        except (UnicodeDecodeError, EOFError, OSError, csv.Error, zlib.error) as error:
            said = "is not a text" if isinstance(error, UnicodeDecodeError) else "cannot be read to its end"
            raise ConfigError(f"{path} {said}; name a CSV or NDJSON file, or the database of a relay") from None


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a file by the names of their columns, each with the number of its line."""
    with _opened(path) as file:
        first = file.readline(_MOST_CHARACTERS)
        if not first.strip():
            raise ConfigError(
                f"{path} is empty; it needs a line {','.join(COLUMNS[:6])} and a candle in each line below"
            )
        if first.lstrip("\ufeff \t").startswith("{"):
            yield from _json_records(path, first, file)
        else:
            yield from _csv_records(path, first, file)


def _csv_records(path: Path, first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    names = [name.strip().lower() for name in next(csv.reader([first.lstrip("\ufeff")]))]
    _check_head(path, names)
    for number, row in enumerate(csv.reader(file), 2):
        if not row:
            continue
        if len(row) != len(names):
            raise ConfigError(f"{path}, line {number}: has {len(row)} values for {len(names)} columns")
        yield number, dict(zip(names, row, strict=True))


def _check_head(path: Path, names: Sequence[str]) -> None:
    columns = ",".join(COLUMNS[:6])
    if not {*names} & {*COLUMNS}:
        raise ConfigError(f"{path}, line 1: {shown(','.join(names))} names no columns; begin with a line {columns}")
    if lacking := [name for name in _PRICES if name not in names]:
        raise ConfigError(f"{path}, line 1: there is no column {lacking[0]}; begin with a line {columns}")
    if unknown := [name for name in names if name not in COLUMNS and name != _IS_CLOSED]:
        raise ConfigError(
            f"{path}, line 1: the column {shown(unknown[0])} is not known; columns are {', '.join(COLUMNS)}"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{path}, line 1: the column {twice[0]} is there twice")


def _json_records(path: Path, first: str, file: TextIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number, line = 1, first.lstrip("\ufeff")
    while line:
        if line.strip():
            try:
                record = orjson.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise ConfigError(f"{path}, line {number}: {shown(line.strip())} is not one JSON object")
            yield number, record
        number, line = number + 1, file.readline()


def _judged(
    record: Mapping[str, Any], file: RecordedFile, newest: dict[tuple[str, StreamKey], int]
) -> tuple[str, StreamKey, Candle]:
    """Return the candle of a row with its provider and stream. Raises `ValueError` that says what is wrong."""
    provider, key = _stream_of(record, file)
    if record.get("type") == "error":
        # A line of history of several symbols: what stands before it is not all.
        raise ValueError(f"{key.symbol}@{key.interval} is not complete: {str(record.get('message'))[:_MOST_SAID]}")
    time = _time_of(record.get("time"))
    opened, high, low, close = [_number_of(name, record.get(name)) for name in _PRICES[1:]]
    given = [record.get(name) for name in _NUMBERS]
    volume, quote_volume, trades, taker_volume, taker_quote_volume = [
        None if value is None or value == "" else _number_of(name, value)
        for name, value in zip(_NUMBERS, given, strict=True)
    ]
    candle = Candle(time, opened, high, low, close, volume or 0.0)
    if (quote_volume, trades, taker_volume, taker_quote_volume) != (None,) * 4:
        if trades is not None and not trades.is_integer():
            raise ValueError(f"trades {trades:g} is not a whole number")
        counted = None if trades is None else int(trades)
        candle = extend(candle, CandleExtras(quote_volume, counted, taker_volume, taker_quote_volume))
    if (fault := _JUDGE.fault_of_candle(candle, key.interval)) is not None:
        raise ValueError(f"{fault} ({', '.join(f'{name} {value:g}' for name, value in candle._asdict().items())})")
    before = newest.get((provider, key), -1)
    if time <= before:
        what = "is there twice" if time == before else f"comes after the one of {before}"
        raise ValueError(f"the candle of {key} with the time {time} {what}; each is there once, the oldest first")
    newest[provider, key] = time
    return provider, key, candle


def _stream_of(record: Mapping[str, Any], file: RecordedFile) -> tuple[str, StreamKey]:
    symbol, interval, provider = record.get("symbol"), record.get("interval"), record.get("provider") or None
    if provider is not None and not (isinstance(provider, str) and _NAME.fullmatch(provider)):
        raise ValueError(f"provider {shown(provider)} is not a name; write one such as binance")
    if not (symbol or interval) and file.key is not None:
        return provider or file.provider, file.key
    if not (symbol and interval):
        raise ValueError(
            "it is not said of which stream the candle is; write --replay BTCUSDT@1m=FILE, with the stream in front of "
            "the file, or give the file the columns symbol and interval"
        )
    key = _key_of(str(symbol), str(interval))
    if file.key not in (None, key):
        raise ValueError(f"the candle is of {key}; --replay says that the file is of {file.key}")
    return provider or file.provider, key


def _key_of(symbol: str, interval: str) -> StreamKey:
    if not is_symbol(symbol.upper()):
        raise ValueError(f"{shown(symbol)} is not a symbol; it has {SPELLING}")
    try:
        return StreamKey(symbol.upper(), parse_interval(interval))
    except RequestError as error:
        raise ValueError(error.message) from None


def _time_of(value: object) -> int:
    time = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else value
    if type(time) is not int or time < 0:
        raise ValueError(f"time {shown(value)} is not an open time in whole Unix seconds, such as 1764000000")
    if time >= _MILLISECONDS:
        raise ValueError(f"time {time} is in milliseconds; write Unix seconds, {time // 1000}")
    return time


def _number_of(name: str, value: Any) -> float:
    kind = type(value)
    try:
        # Python reads 1_000 as well.
        if kind is float or kind is int or (kind is str and "_" not in value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} {shown(value)} is not a number")


# Prices of zero and below are for other markets than these; which market it is a file does not say.
_JUDGE = CandleValidator(ProviderInfo(PROVIDER, API_VERSION, PROVIDER, ("recorded",), INTERVALS))
