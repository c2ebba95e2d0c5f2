"""Answers of the REST routes into values; no I/O. Each reader raises `Unreadable`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from relay.client.data_frame import are_extended, data_frame
from relay.client.decoding import MALFORMED, Unreadable, read_candle
from relay.core.model import Candle, parted

if TYPE_CHECKING:
    import pandas


class History(NamedTuple):
    """Candles, oldest first; the last one may be open. `wire` is the relay's answer."""

    symbol: str
    interval: str
    candles: tuple[Candle, ...]
    last_is_closed: bool
    wire: Mapping[str, Any]

    @property
    def provider(self) -> str:
        """Who the candles come from; empty if the relay did not say."""
        return str(self.wire.get("provider") or "")

    @property
    def is_complete(self) -> bool:
        """False if the relay says that a candle may be missing; it requests it again."""
        return self.wire.get("complete") is not False

    @property
    def closed_candles(self) -> tuple[Candle, ...]:
        """Those that are final."""
        return tuple(parted(self.candles, self.last_is_closed)[0])

    @property
    def open_candle(self) -> Candle | None:
        """The last one while it still changes; None where all are closed."""
        return parted(self.candles, self.last_is_closed)[1]

    def to_pandas(self, *, closed_only: bool = False) -> "pandas.DataFrame":
        """Return the candles as a DataFrame: open times (UTC) as the index `time`, prices and volumes as floats.

        The last row may still change, unless `closed_only` leaves it out; `attrs["last_is_closed"]` says so, and
        `attrs` also has `symbol`, `interval`, `provider` and `is_complete`. Extended candles have more columns, NaN
        where a value is not known. Raises `MissingPackage` where pandas is not installed.
        """
        candles = self.closed_candles if closed_only else self.candles
        return data_frame(
            candles,
            extended=are_extended(self.candles),
            symbol=self.symbol,
            interval=self.interval,
            provider=self.provider,
            is_complete=self.is_complete,
            last_is_closed=closed_only or self.last_is_closed,
        )


class ListedInstrument(NamedTuple):
    """What a symbol denotes, and which provider serves it; `status` is `trading` or `paused`.

    `id` is `provider:SYMBOL` and always means this instrument. `price_step` and `volume_step` are decimal texts,
    `session` is `24x7` or hours and a time zone, `listed_at` and `expires_at` are Unix seconds. None is what the relay
    does not know.
    """

    symbol: str
    provider: str
    asset_class: str
    base: str
    quote: str
    intervals: tuple[str, ...]
    attribution: str
    status: str = "trading"
    id: str = ""
    name: str | None = None
    derived_intervals: tuple[str, ...] = ()
    price_step: str | None = None
    volume_step: str | None = None
    volume_unit: str | None = None
    session: str | None = None
    listed_at: int | None = None
    expires_at: int | None = None


_DETAILS = ("name", "price_step", "volume_step", "volume_unit", "session", "listed_at", "expires_at")


def read_history(answer: Any) -> History:
    """Read the answer of `history`."""
    try:
        candles = tuple(map(read_candle, answer["candles"]))
        return History(answer["symbol"], answer["interval"], candles, bool(answer["last_is_closed"]), answer)
    except MALFORMED as fault:
        raise Unreadable from fault


def read_symbols(answer: Any) -> list[str]:
    """Read the answer of `symbols`."""
    if not isinstance(answer, list) or not all(isinstance(symbol, str) for symbol in answer):
        raise Unreadable
    return answer


def read_instruments(answer: Any) -> list[ListedInstrument]:
    """Read the answer of `instruments`."""
    if not isinstance(answer, list):
        raise Unreadable
    try:
        return [
            ListedInstrument(
                symbol=item["symbol"],
                provider=item["provider"],
                asset_class=item["asset_class"],
                base=item["base"],
                quote=item["quote"],
                intervals=tuple(item["intervals"]),
                attribution=item.get("attribution") or "",
                status=item.get("status") or "trading",
                id=item.get("id") or _id_of(item["provider"], item["symbol"]),
                derived_intervals=tuple(item.get("derived_intervals") or ()),
                **{field: item.get(field) for field in _DETAILS},
            )
            for item in answer
        ]
    except MALFORMED as fault:
        raise Unreadable from fault


def _id_of(provider: str, symbol: str) -> str:
    """Return the id of an instrument of a relay that does not say it; its symbol may be that already."""
    return symbol if symbol.startswith(f"{provider}:") else f"{provider}:{symbol}"


def read_status(answer: Any) -> dict[str, Any]:
    """Read the answer of `status`, whatever it holds."""
    if not isinstance(answer, dict):
        raise Unreadable
    return answer
