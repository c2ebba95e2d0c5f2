"""What answers of Twelve Data mean: candles, or an error, which may come with any HTTP status; pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from providers.twelve_data.forex import Hours, without_padding
from relay import (
    AuthenticationFailed,
    BadAnswer,
    Candle,
    ProviderError,
    ProviderUnavailable,
    Secret,
    UnknownSymbol,
    decimal,
    decimals,
    is_unreadable,
    read_rows,
)

INTERVALS = {
    "1m": "1min", "5m": "5min", "15m": "15min", "30m": "30min", "1h": "1h", "2h": "2h", "4h": "4h", "8h": "8h",
    "1d": "1day", "1w": "1week", "1M": "1month",
}  # fmt: skip
"""As the provider's own error lists them; its OpenAPI file has `5h` too."""

PAGE = 5000
"""The most rows of one answer: `outputsize` in the OpenAPI file, and measured: a long range has exactly so many."""
NO_CODES: Mapping[str, str] = MappingProxyType({})


class SeriesAnswer(NamedTuple):
    """What one answer holds of one symbol: rows in it, the first open time, how many are unreadable, and candles."""

    rows: int
    oldest: int
    spoilt: int
    candles: list[Candle]

    @property
    def says_nothing(self) -> bool:
        """Say whether there are rows, and not even the times of any can be read."""
        return self.rows > 0 and self.rows == self.spoilt and not self.oldest


class KeyRefused(NamedTuple):
    """An error instead of candles; code 0 for an answer that makes no sense."""

    code: int
    message: str

    @property
    def is_empty(self) -> bool:
        """Say whether it only means that there is nothing in the range."""
        return self.code in (400, 404, 422) and self.message.lower().startswith("no data")

    def error(self) -> ProviderError:
        """Build the error to raise when it concerns the whole request."""
        if self.code == 401:
            return AuthenticationFailed("the key was refused", detail=self.message)
        if self.code >= 500:
            return ProviderUnavailable(f"error {self.code}", detail=self.message)
        if self.code == 404:
            return UnknownSymbol(self.message)
        return BadAnswer(f"error {self.code}", detail=self.message) if self.code else BadAnswer(self.message)


def refusal(body: object, status: int, key: Secret) -> KeyRefused | None:
    """Find the error in an answer: it may come with any HTTP status, 200 too. The key is struck out of its words."""
    content = body if isinstance(body, dict) else {}
    code = content.get("code")
    if status < 400 and content.get("status") != "error" and not (type(code) is int and code >= 400):
        return None
    if type(code) is not int:
        code = status if status >= 400 else 500
    message = content.get("message")
    return KeyRefused(code, message.replace(key.reveal(), "***")[:200] if isinstance(message, str) else "")


def contradiction(body: object, symbol: str, interval: str, codes: Mapping[str, str] = NO_CODES) -> str | None:
    """Say what an answer says of itself that is not what was asked for; None if it fits or says nothing.

    `interval` is the provider's name of it, `codes` the codes of currencies by the provider's names of them.
    """
    meta = body.get("meta") if isinstance(body, dict) else None
    if not isinstance(meta, dict):
        return None
    said, length = meta.get("symbol"), meta.get("interval")
    if said and str(said).upper() != symbol.upper():
        return f"asked for {symbol}, the answer is for {said!s:.40}"
    if length and length != interval:
        return f"asked for {symbol} at {interval}, the answer is at {length!s:.40}"
    base, _, quote = symbol.upper().partition("/")
    for field, code in (("currency_base", base), ("currency_quote", quote)):
        name = meta.get(field)
        if isinstance(name, str) and codes.get(name, code) != code:
            return f"asked for {symbol}, the {field} of the answer is {name:.40}"
    return None


def read_series(
    body: object,
    interval: str,
    hours: Hours,
    symbol: str = "",
    codes: Mapping[str, str] = NO_CODES,
    *,
    now: float = inf,
) -> SeriesAnswer | KeyRefused:
    """Read one symbol's candles, oldest first, each open time once, widened where a bar contradicts itself a little.

    It came at `now`, by the provider's time; nothing is open unless that is given.
    A row that cannot be used is an unreadable candle. An answer about something else than was asked for is refused.
    """
    values = body.get("values") if isinstance(body, dict) else None
    if not isinstance(values, list):
        return KeyRefused(0, "the answer has no values")
    if len(values) > PAGE:
        return KeyRefused(0, f"the answer has {len(values):,} rows, more than the limit of {PAGE:,}")
    if symbol and (wrong := contradiction(body, symbol, INTERVALS[interval], codes)) is not None:
        return KeyRefused(0, wrong)
    try:
        candles = read_rows(values, interval, _open_time, _candle, is_newest_first=True)
    except BadAnswer:
        return SeriesAnswer(len(values), 0, len(values), [])
    oldest = candles[0].time if candles else 0
    spoilt = sum(map(is_unreadable, candles))
    return SeriesAnswer(len(values), oldest, spoilt, without_padding(candles, interval, hours, now=now))


def _open_time(row: Any) -> int:
    """Read a label in UTC, of a second or of a day."""
    label = row["datetime"]
    if len(label) not in (10, 19) or not label.isascii() or label[7] != "-":
        raise ValueError(f"{label!r:.40} is not a time")
    return int(datetime.fromisoformat(label).replace(tzinfo=UTC).timestamp())


def _candle(row: Any, time: int) -> Candle:
    opened, high, low, close = decimals((row["open"], row["high"], row["low"], row["close"]))
    volume = row.get("volume")
    return Candle(time, opened, high, low, close, decimal(volume) if volume else 0.0)
