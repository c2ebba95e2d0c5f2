from relay import Clock, PriceUpdate, StreamKey
from relay.testing import check_provider, sped_up

from market_relay_my_ticks import MyTicksCodec
from my_ticks_standin import MyTicksStandIn

KEY = StreamKey("AAA-BBB", "1m")


@sped_up
async def test_conformance() -> None:
    async with MyTicksStandIn() as venue:
        await check_provider("market_relay_my_ticks", symbol="AAA-BBB", interval="1m", settings=venue.settings)


def trade(second: float, price: int) -> str:
    return f'{{"type":"trade","symbol":"AAA-BBB","time_ms":{int(second * 1000)},"price":{price},"size":2}}'


def test_candle_whose_beginning_was_missed_is_not_closed_and_the_next_one_is() -> None:
    now_s = 1764000030.0
    codec = MyTicksCodec("ws://venue", Clock(lambda: now_s, lambda: now_s))
    codec.subscribe([KEY])
    list(codec.decode('{"type":"subscribed","symbol":"AAA-BBB","time_ms":1764000030000}'))
    closed = []
    for second, price in ((1764000031, 5), (1764000061, 6), (1764000062, 4), (1764000125, 7)):
        now_s = second
        told = [update for update in codec.decode(trade(now_s, price)) if isinstance(update, PriceUpdate)]
        closed += [tuple(update.candle) for update in told if update.is_closed]
    assert closed == [(1764000060, 6.0, 6.0, 4.0, 4.0, 4.0)]
