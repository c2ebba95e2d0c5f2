"""The instruments of another relay, under the names that it has for them; pure."""

from collections.abc import Mapping
from typing import Any

from relay import Instrument, TradingCalendar


def read_instrument(wire: Mapping[str, Any]) -> Instrument:
    """Return one entry of `instruments`. What the other relay builds of shorter candles is asked of it, too.

    Raises `LookupError` or `TypeError`.
    """
    return Instrument(
        symbol=wire["symbol"],
        asset_class=wire["asset_class"],
        base=wire["base"],
        quote=wire["quote"],
        intervals=(*wire["intervals"], *wire.get("derived_intervals", ())),
        status=wire.get("status", "trading"),
        name=wire.get("name"),
        price_step=wire.get("price_step"),
        volume_step=wire.get("volume_step"),
        volume_unit=wire.get("volume_unit"),
        session=wire.get("session"),
        listed_at=wire.get("listed_at"),
        expires_at=wire.get("expires_at"),
    )


class Calendars:
    """When the instruments are traded, by their sessions; holidays are not among what a relay says of them."""

    def __init__(self) -> None:
        self._by_text: dict[str, TradingCalendar | None] = {}
        self._texts: dict[str, str] = {}

    def learn(self, symbol: str, session: str | None) -> None:
        """Note when an instrument is traded."""
        if session is not None:
            self._texts[symbol] = session

    def of(self, symbol: str) -> TradingCalendar | None:
        """Return the calendar of a symbol, None for one that is always traded, or unknown."""
        text = self._texts.get(symbol)
        if text is None:
            return None
        if text not in self._by_text:
            self._by_text[text] = _calendar(text)
        return self._by_text[text]


def _calendar(text: str) -> TradingCalendar | None:
    sessions, _, zone = text.rpartition(" ")
    try:
        return TradingCalendar(zone, sessions) if sessions else None
    except ValueError:
        # A newer relay may say it in a form that is not known here.
        return None
