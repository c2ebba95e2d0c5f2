"""No provider: wraps the history of all others and doubles their volumes."""

from relay import hookimpl


async def _doubled(pending):
    return [candle._replace(volume=candle.volume * 2) for candle in await pending]


@hookimpl(wrapper=True)
def relay_candles():
    pending = yield
    return _doubled(pending)
