"""What answers of Twelve Data mean: candles, or an error, which may come with any HTTP status; pure."""

from datetime import UTC, datetime
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
    next_open,
)

INTERVALS = {
    "1m": "1min", "5m": "5min", "15m": "15min", "30m": "30min", "1h": "1h", "2h": "2h", "4h": "4h", "8h": "8h",
    "1d": "1day", "1w": "1week", "1M": "1month",
}  # fmt: skip


class Series(NamedTuple):
    """What one answer holds of one symbol: rows in it, the first open time, rows that made no sense, and candles."""

    rows: int
    oldest: int
    spoilt: int
    candles: list[Candle]


class Refused(NamedTuple):
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
            return AuthenticationFailed(f"the key was refused: {self.message}")
        if self.code >= 500:
            return ProviderUnavailable(f"error {self.code}: {self.message}")
        if self.code == 404:
            return UnknownSymbol(self.message)
        return BadAnswer(f"error {self.code}: {self.message}" if self.code else self.message)


def refusal(body: object, status: int, key: Secret) -> Refused | None:
    """Find the error in an answer: it may come with any HTTP status, 200 too. The key is struck out of its words."""
    content = body if isinstance(body, dict) else {}
    code = content.get("code")
    if status < 400 and content.get("status") != "error" and not (type(code) is int and code >= 400):
        return None
    if type(code) is not int:
        code = status if status >= 400 else 500
    message = content.get("message")
    return Refused(code, message.replace(key.reveal(), "***")[:200] if isinstance(message, str) else "")


def read_series(body: object, interval: str, hours: Hours) -> Series | Refused:
    """Read one symbol's candles, oldest first, each open time once, widened where a bar contradicts itself."""
    values = body.get("values") if isinstance(body, dict) else None
    if not isinstance(values, list):
        return Refused(0, "the answer holds no values")
    candles: dict[int, Candle] = {}
    spoilt = 0
    for row in values:
        try:
            candle = _candle(row, interval)
        except (ValueError, TypeError, LookupError, ArithmeticError):
            spoilt += 1
            continue
        # Newest first: what comes later of the same open time is older.
        candles.setdefault(candle.time, candle)
    ordered = [candles[moment] for moment in sorted(candles)]
    oldest = ordered[0].time if ordered else 0
    return Series(len(values), oldest, spoilt, without_padding(ordered, interval, hours))


def _candle(row: Any, interval: str) -> Candle:
    at = datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC)
    opened, high, low, close = float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"])
    candle = Candle(
        int(at.timestamp()),
        opened,
        max(opened, high, low, close),
        min(opened, high, low, close),
        close,
        float(row.get("volume") or 0.0),
    )
    if (fault := candle.fault()) is not None:
        raise ValueError(fault)
    # Raises for a month that does not begin on a day which every month has.
    next_open(interval, candle.time)
    return candle
