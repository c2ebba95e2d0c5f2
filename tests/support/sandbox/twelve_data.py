"""The stand-in for Twelve Data."""

from collections.abc import Mapping
from typing import Any

from providers.sandbox.connection import Connection
from providers.sandbox.twelve_data import SimulatedTwelveData, price_event
from tests.support.sandbox.clock import StagedClock
from tests.support.sandbox.market import StagedMarket
from tests.support.sandbox.stand_in import StandIn
from tests.support.sandbox.twelve_data_rest import FurtherCalls


class TwelveDataStandIn(StandIn, SimulatedTwelveData):
    """Behave like Twelve Data does for forex and metals, but for what `faults` are told.

    `padding` fills closed hours with almost flat bars; `errors_as_200` delivers errors inside HTTP 200;
    `inconsistent_bars` lets a few closes lie outside high and low; `null_lists` sends empty lists of subscribe answers
    as null instead of leaving them out.
    """

    rest: FurtherCalls
    rest_type = FurtherCalls

    def __init__(
        self,
        market: StagedMarket | None = None,
        clock: StagedClock | None = None,
        *,
        errors_as_200: bool = False,
        padding: bool = True,
        inconsistent_bars: bool = False,
        null_lists: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(market, clock, **settings)
        self.null_lists = null_lists
        self.rest.errors_as_200 = errors_as_200
        self.rest.bars.padding = padding
        self.rest.bars.inconsistent = inconsistent_bars

    def serve_rows(self, symbol: str, interval: str, answer: Mapping[str, object]) -> None:
        """Answer time_series of a symbol and interval (`1min` …) from this recorded answer."""
        self.rest.serve_rows(symbol, interval, answer)

    def inject(self, symbol: str, price: object, timestamp: object = None, **fields: object) -> None:
        """Send a price event now to whoever subscribed the symbol, with any field replaced or added.

        It is sent even while the symbol is muted.
        """
        message = price_event(self.market.forex[symbol], 0, self.now_ms())
        message["price"] = price
        if timestamp is not None:
            message["timestamp"] = timestamp
        message.update(fields)
        for connection in SimulatedTwelveData.listeners(self, symbol):
            self.say(connection, message)

    def change(self, connection: Connection, action: str, wanted: list[str]) -> None:
        """Subscribe or unsubscribe, unless subscriptions are to be refused."""
        refusal = self.faults.subscription_refusal() if action == "subscribe" else None
        if refusal is None:
            super().change(connection, action, wanted)
        else:
            fails = [{"symbol": symbol, "message": refusal} for symbol in wanted]
            self.say(connection, {"event": "subscribe-status", "status": "error", "fails": fails})

    def say(self, connection: Connection, message: dict[str, object]) -> None:
        """Answer a request."""
        if self.null_lists and str(message["event"]) in ("subscribe-status", "unsubscribe-status"):
            message = {"success": None, "fails": None, **message}
        super().say(connection, message)
