"""A provider that says what time it is there is believed, whatever stamps and this machine say."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from relay.core.clock import Clock, ProviderClock, StatedClock


def stated(read: Callable[[], float], faults: list[Exception] | None = None) -> StatedClock:
    return StatedClock(ProviderClock(Clock(lambda: 2e9, lambda: 50.0)), read, ([] if faults is None else faults).append)


def test_every_question_is_answered_by_what_it_states() -> None:
    now = [1_700_000_000.0]
    clock = stated(lambda: now[0])
    for _ in range(2):
        assert {clock.now(), clock.reach(), clock.over(), clock.certain(), clock.latest()} == {now[0]}
        now[0] += 3600.5
    assert clock.is_synchronised
    assert clock.monotonic() == 50.0


def test_no_stamp_and_no_candle_moves_it() -> None:
    clock = stated(lambda: 1_700_000_000.0)
    for stamp_s in (1.0, 1_700_000_300.0, 1_700_009_000.0):
        for symbol in (None, "A", "B", "A"):
            assert clock.observe(stamp_s, symbol) == 1_700_000_000.0 - stamp_s
    clock.see(1_800_000_000.0)
    assert clock.now() == clock.over() == 1_700_000_000.0
    assert not clock.is_wall_behind
    assert not clock.is_contradicted("A")


def test_a_moment_that_was_read_was_right() -> None:
    assert stated(lambda: 1_700_000_000.0).at_best(1_600_000_000.0, 3.0) == 1_600_000_000.0
    estimated = ProviderClock(Clock(lambda: 1_700_000_100.0, lambda: 50.0))
    assert estimated.at_best(1_600_000_000.0, 40.0) == 1_700_000_090.0


def test_it_never_goes_back() -> None:
    moments = iter([100.0, 200.0, 150.0, 250])
    clock = stated(lambda: next(moments))
    assert [clock.now(), clock.now(), clock.now()] == [200.0, 200.0, 250]


@pytest.mark.parametrize("given", [None, "noon", math.nan, math.inf, RuntimeError("stopped")])
def test_it_stands_still_where_the_plugin_fails_and_says_so(given: Any) -> None:
    said: list[Any] = [100.0, given, 200.0]

    def read() -> Any:
        one = said.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    faults: list[Exception] = []
    clock = stated(read, faults)
    assert [clock.now(), clock.now()] == [100.0, 200.0]
    assert len(faults) == 1


def test_a_first_reading_that_is_not_a_time_is_refused() -> None:
    with pytest.raises(TypeError, match="'noon', not a number of Unix seconds"):
        stated(lambda: "noon")  # type: ignore[arg-type,return-value]
