"""When feeds of a provider may be opened, by what it said itself and what other relays were told."""

import asyncio
from functools import partial

import pytest

from relay import ProviderUnavailable, RateLimited
from relay.plugins.feed_waits import FeedWaits

refused = partial(RateLimited, "HTTP 418", by_provider=True)


def left(waits: FeedWaits) -> tuple[float, str] | None:
    found = waits.left()
    return None if found is None else (round(found.left_s, 3), found.why)


async def test_the_longest_of_what_was_told_and_heard_is_kept_to() -> None:
    waits, told = FeedWaits(), list[float]()
    waits.on_told = told.append
    assert (left(waits), waits.told_s()) == (None, 0.0)
    waits.note(refused(60.0))
    waits.note(refused(20.0))
    assert (left(waits), told) == ((60.0, "HTTP 418"), [60.0, 20.0])
    waits.hear(70.0, "another relay")
    await asyncio.sleep(5)
    assert left(waits) == (65.0, "another relay")
    assert waits.told_s() == pytest.approx(55.0)
    waits.hear(5.0, "another relay")
    assert left(waits) == (55.0, "HTTP 418")
    await asyncio.sleep(55)
    assert (left(waits), waits.told_s()) == (None, 0.0)


async def test_what_is_no_wish_of_the_provider_holds_nobody_up() -> None:
    waits, told = FeedWaits(), list[float]()
    waits.on_told = told.append
    waits.note(RateLimited("the credits of this minute are used up", 40.0))
    waits.note(ProviderUnavailable("HTTP 503"))
    waits.note(refused(0.0))
    assert (left(waits), told) == (None, [])


async def test_other_settings_begin_anew() -> None:
    waits = FeedWaits()
    waits.note(refused(60.0))
    waits.hear(90.0, "another relay")
    waits.forget()
    assert (left(waits), waits.told_s()) == (None, 0.0)
