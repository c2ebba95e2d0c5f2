"""What Binance writes of a kline beside the numbers of a candle, kept for programs that speak its protocol; pure."""

from relay import next_open

USUAL = "0"
"""rest-api.md, "Kline/Candlestick data": the last field, to be ignored. The first kline of BNBBTC has another one."""


def remainder(interval: str, open_ms: int, close_ms: object, ignored: object = USUAL) -> str:
    """Return the close time, in Unix milliseconds, and the ignored field, joined by a comma; "" if both are as usual.

    The usual close time is the last millisecond of the interval. In an outage klines are cut short.
    """
    if not isinstance(ignored, str) or not ignored.isascii() or not ignored.replace(".", "").isdigit():
        ignored = USUAL
    is_usual = close_ms == next_open(interval, open_ms // 1000) * 1000 - 1
    if is_usual and ignored == USUAL:
        return ""
    return f"{close_ms}" if ignored == USUAL else f"{close_ms},{ignored}"
