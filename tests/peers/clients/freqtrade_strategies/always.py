"""A strategy of freqtrade that always buys, and writes down each candle that it was shown."""

import json
import os
from pathlib import Path
from typing import ClassVar

from freqtrade.strategy import IStrategy


class Always(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi: ClassVar = {"0": 10}
    stoploss = -0.9
    startup_candle_count = 10

    def populate_indicators(self, dataframe, metadata):
        rows = dataframe.tail(12)
        times = [int(moment.timestamp()) * 1000 for moment in rows["date"]]
        values = rows[["open", "high", "low", "close", "volume"]].values.tolist()
        seen = {"pair": metadata["pair"], "rows": [[time, *row] for time, row in zip(times, values, strict=True)]}
        with Path(os.environ["SEEN_BY_THE_STRATEGY"]).open("a") as file:
            file.write(json.dumps(seen) + "\n")
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
