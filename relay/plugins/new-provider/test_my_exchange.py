from relay import Candle, PriceUpdate, StreamKey
from relay.testing import check_provider, sped_up

from market_relay_my_exchange import MyExchangeCodec
from my_exchange_standin import StandIn

KEY = StreamKey("AAA-BBB", "1m")


@sped_up
async def test_conformance() -> None:
    # Minutes of the stand-in in a second or two. A fault is blamed by a name that the guide explains.
    async with StandIn() as venue:
        await check_provider("market_relay_my_exchange", symbol="AAA-BBB", interval="1m", settings=venue.settings)


def message(opened: int, close: int) -> str:
    return (
        f'{{"type":"candle","symbol":"AAA-BBB","interval":"1m","sent_ms":{opened * 1000},'
        f'"time":{opened},"open":1,"high":9,"low":1,"close":{close},"volume":2}}'
    )


def test_candle_is_closed_when_the_next_one_begins() -> None:
    codec = MyExchangeCodec("ws://venue")
    codec.subscribe([KEY])
    assert list(codec.decode(message(60, 3))) == [PriceUpdate(KEY, Candle(60, 1.0, 9.0, 1.0, 3.0, 2.0), False, 60_000)]
    assert list(codec.decode(message(120, 4))) == [
        PriceUpdate(KEY, Candle(60, 1.0, 9.0, 1.0, 3.0, 2.0), True, 120_000),
        PriceUpdate(KEY, Candle(120, 1.0, 9.0, 1.0, 4.0, 2.0), False, 120_000),
    ]
