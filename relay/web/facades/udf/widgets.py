"""What OpenBB Workspace can show of the relay: a chart and a live watch list; pure.

https://docs.openbb.co/workspace/developers/json-specs/widgets-json-reference has the fields. Addresses are relative to
the one by which the relay was added there, which may have a token in it.
"""

from collections.abc import Sequence
from typing import Any

ROWS, LIVE = "udf/rows", "udf/rows_ws"
_CATEGORY = "Market data"
_UPDATE_MS = 10_000
_AT_FIRST = 4


def widgets(names: Sequence[str]) -> dict[str, Any]:
    """Return the widgets; `names` are symbols to choose from, the likeliest first."""
    return {
        "market_relay_chart": {
            "name": "Market relay: chart",
            "description": "Candles of all instruments of the relay, past and live.",
            "category": _CATEGORY,
            "type": "advanced_charting",
            "endpoint": "/udf",
            "gridData": {"w": 20, "h": 20},
            "data": {"defaultSymbol": names[0] if names else "", "updateFrequency": _UPDATE_MS},
        },
        "market_relay_watch_list": {
            "name": "Market relay: watch list",
            "description": "Live prices, and their changes since the day before.",
            "category": _CATEGORY,
            "type": "live_grid",
            "endpoint": ROWS,
            "wsEndpoint": LIVE,
            "gridData": {"w": 20, "h": 9},
            "params": [
                {
                    "paramName": "symbol",
                    "label": "Symbols",
                    "description": "Symbols of the relay, such as BTCUSDT or binance:BTCUSDT; others can be typed.",
                    "type": "text",
                    "multiSelect": True,
                    "value": ",".join(names[:_AT_FIRST]),
                    "options": [{"label": name, "value": name} for name in names],
                }
            ],
            "data": {
                "wsRowIdColumn": "symbol",
                "table": {
                    "showAll": True,
                    "columnsDefs": [
                        {"field": "symbol", "headerName": "Symbol", "cellDataType": "text"},
                        {
                            "field": "price",
                            "headerName": "Price",
                            "cellDataType": "number",
                            "renderFn": "showCellChange",
                            "renderFnParams": {"colorValueKey": "change"},
                        },
                        {
                            "field": "change",
                            "headerName": "Change",
                            "cellDataType": "number",
                            "renderFn": "greenRed",
                        },
                        {
                            "field": "change_percent",
                            "headerName": "Change %",
                            "cellDataType": "number",
                            "formatterFn": "normalizedPercent",
                            "renderFn": "greenRed",
                        },
                        {"field": "volume", "headerName": "Volume", "cellDataType": "number"},
                    ],
                },
            },
        },
    }
