"""The request weight of an address, which several relays may share."""

import pytest

from providers.binance_markets.weight import Weight
from relay import RateLimited


def test_a_part_of_the_weight_is_spent_whatever_others_of_the_address_use() -> None:
    now = 1_770_000_000.0
    weight = Weight(6000, wall=lambda: now, monotonic=lambda: now)
    weight.divide(3)
    weight.learn("3000")
    for _ in range(18):
        weight.spend(100)
    with pytest.raises(RateLimited):
        weight.spend(1)
    assert weight.budget()[:3] == ("request weight a minute", 2000, 1800)
    weight.divide(1)
    assert weight.budget()[:3] == ("request weight a minute", 6000, 4800)
    weight.spend(600)
    with pytest.raises(RateLimited):
        weight.spend(1)
