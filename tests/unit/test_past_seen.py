"""What was stored when somebody looked, and whether it still holds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import Span
from relay.storage.past_seen import PastSeen, RemovalLog
from relay.storage.store import Store

MINUTES, HOURS = StreamKey("ACME", "1m"), StreamKey("ACME", "1h")
OTHER = StreamKey("OTHER", "1m")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "relay.db", Clock())
    yield store
    await store.close()


def test_what_was_taken_away_before_is_part_of_what_was_seen() -> None:
    noted = RemovalLog()
    noted.note_deleted(("p", MINUTES))
    noted.note_other_past("p", "ACME")
    noted.note_all()
    seen = PastSeen(noted)
    assert seen.is_same("p", "ACME")
    assert seen.has_all("p", MINUTES)


def test_a_stream_that_lost_candles_has_the_same_past_and_no_other_stream_lost_any() -> None:
    noted = RemovalLog()
    seen = PastSeen(noted)
    noted.note_deleted(("p", MINUTES))
    assert not seen.has_all("p", MINUTES)
    assert seen.is_same("p", "ACME")
    assert seen.has_all("p", HOURS)
    assert seen.has_all("q", MINUTES)


def test_another_past_is_one_in_all_intervals_of_the_symbol_and_in_no_other() -> None:
    noted = RemovalLog()
    seen = PastSeen(noted)
    noted.note_other_past("p", "ACME")
    assert not seen.is_same("p", "ACME")
    assert seen.is_same("p", "OTHER")
    assert seen.is_same("q", "ACME")


def test_another_file_may_lack_something_of_every_stream() -> None:
    noted = RemovalLog()
    seen = PastSeen(noted)
    noted.note_all()
    assert not seen.has_all("p", OTHER)
    assert seen.is_same("p", "OTHER")


async def test_everything_that_takes_away_is_noticed_by_whoever_looked_before(store: Store) -> None:
    candles = [Candle(60 * n, 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(2000)]
    await store.add("p", MINUTES, candles, Span(0, 120_000))
    seen = store.look()
    await store.removals.trim("p", MINUTES, 512 * 60, 1)
    assert (seen.has_all("p", MINUTES), seen.is_same("p", "ACME")) == (False, True)
    seen = store.look()
    store.removals.void("p", PastChange(MINUTES))
    assert (seen.has_all("p", MINUTES), seen.is_same("p", "ACME")) == (False, False)
    seen = store.look()
    await store.removals.set_aside("p", "ACME", "ACME~OLD")
    assert (seen.has_all("p", MINUTES), seen.is_same("p", "ACME")) == (False, False)
    seen = store.look()
    await store.removals.take_back("p", "ACME~OLD", "ACME")
    assert (seen.has_all("p", MINUTES), seen.is_same("p", "ACME")) == (False, True)
    assert (seen.has_all("p", OTHER), seen.is_same("p", "OTHER")) == (True, True)


async def test_what_was_asked_for_of_another_past_is_not_stored(store: Store) -> None:
    seen = store.look()
    await store.add("p", OTHER, [Candle(60, 1.0, 1.0, 1.0, 1.0, 1.0)], Span(60, 120), seen=seen)
    store.removals.void("p", PastChange(OTHER))
    await store.add("p", OTHER, [Candle(60, 2.0, 2.0, 2.0, 2.0, 2.0)], Span(60, 120), seen=seen)
    assert await store.read("p", OTHER, 0, 1 << 40) == []
