"""Drive nautilus_trader's Binance data client against the addresses given: past and live bars; print JSON."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta

from nautilus_trader.adapters.binance import BINANCE, BinanceDataClientConfig, BinanceLiveDataClientFactory
from nautilus_trader.adapters.binance.common.enums import BinanceAccountType
from nautilus_trader.config import InstrumentProviderConfig, LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.trading.strategy import Strategy

REST, WS = sys.argv[1:3]
CLOSES = 14


def row(bar):
    # Its times are of the last millisecond, in nanoseconds that went through a float.
    closed = round(bar.ts_event / 1e6)
    return [closed, *map(str, (bar.open, bar.high, bar.low, bar.close, bar.volume))]


class Watching(Strategy):
    def __init__(self):
        super().__init__()
        self.past, self.live = [], []
        self.is_enough = asyncio.Event()

    def on_start(self):
        minutes = BarType.from_str("BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL")
        self.request_bars(minutes, start=datetime.now(UTC) - timedelta(hours=30))
        self.subscribe_bars(BarType.from_str("BTCUSDT.BINANCE-1-SECOND-LAST-EXTERNAL"))

    def on_historical_data(self, data):
        self.past.append(row(data))

    def on_bar(self, bar):
        self.live.append(row(bar))
        if len(self.live) == 1:
            print("begun", flush=True)
        if len(self.live) == CLOSES:
            self.is_enough.set()


# Keys are compulsory before 1.231; any text will do, since nothing signed is sent.
node = TradingNode(
    TradingNodeConfig(
        trader_id=TraderId("PEER-001"),
        logging=LoggingConfig(log_level="ERROR"),
        data_clients={
            BINANCE: BinanceDataClientConfig(
                api_key="a-key",
                api_secret="a-secret",
                account_type=BinanceAccountType.SPOT,
                # Without this line it asks for the fees of the account, and has no instruments when it is refused.
                testnet=True,
                base_url_http=REST,
                base_url_ws=WS,
                instrument_provider=InstrumentProviderConfig(load_ids=frozenset(["BTCUSDT.BINANCE"])),
            )
        },
    )
)
watching = Watching()
node.trader.add_strategy(watching)
node.add_data_client_factory(BINANCE, BinanceLiveDataClientFactory)
node.build()


async def main():
    running = asyncio.create_task(node.run_async())
    await asyncio.wait_for(watching.is_enough.wait(), 150)
    assert not running.done()
    instruments = [str(one.id) for one in node.cache.instruments()]
    print(json.dumps({"past": watching.past, "closes": watching.live, "instruments": instruments}), flush=True)
    # Stopping it takes ten seconds.
    os._exit(0)


node.get_event_loop().run_until_complete(main())
