"""Candles as a DataFrame of pandas, which is imported only when one is made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relay.client.errors import MissingPackage
from relay.core.model import EXTRA_FIELDS, Candle, ExtendedCandle

if TYPE_CHECKING:
    import pandas

_PRICES = Candle._fields[1:]


def data_frame(candles: Sequence[Candle], *, extended: bool = False, **attributes: Any) -> "pandas.DataFrame":
    """Return the candles with their open times (UTC) as the index `time`, all values as floats.

    `extended` adds what else candles carry, NaN where it is not known. `attributes` become the `attrs`. Raises
    `MissingPackage` where pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingPackage("pandas", "to_pandas") from None
    index = pandas.DatetimeIndex(
        pandas.to_datetime([candle.time for candle in candles], unit="s", utc=True), name="time"
    )
    names = (*_PRICES, *EXTRA_FIELDS) if extended else _PRICES
    columns = {name: [_value(candle, name) for candle in candles] for name in names}
    frame = pandas.DataFrame(columns, index=index, dtype="float64")
    frame.attrs.update(attributes)
    return frame


def are_extended(candles: Sequence[Candle]) -> bool:
    """Say whether candles carry more than prices and volume."""
    return any(isinstance(candle, ExtendedCandle) for candle in candles)


def _value(candle: Candle, name: str) -> float | None:
    value: float | None = getattr(candle, name, None)
    return value
