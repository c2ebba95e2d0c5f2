from relay import Candle, PriceUpdate, StreamKey
from relay.testing import check_provider, sped_up

from market_relay_my_polls import updates
from my_polls_standin import MyPollsStandIn

KEY = StreamKey("AAA-BBB", "1m")


@sped_up
async def test_conformance() -> None:
    async with MyPollsStandIn() as venue:
        await check_provider("market_relay_my_polls", symbol="AAA-BBB", interval="1m", settings=venue.settings)


def test_candle_is_closed_when_a_poll_brings_a_newer_one() -> None:
    first, second = Candle(60, 1.0, 9.0, 1.0, 3.0, 2.0), Candle(120, 3.0, 4.0, 3.0, 4.0, 1.0)
    assert updates(KEY, [first], None) == [PriceUpdate(KEY, first)]
    assert updates(KEY, [first, second], 60) == [PriceUpdate(KEY, first, is_closed=True), PriceUpdate(KEY, second)]
    assert updates(KEY, [first, second], 120) == [PriceUpdate(KEY, second)]
