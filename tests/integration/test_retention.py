"""Retention: what is too old goes, a little at a time, and nobody is told that there never was anything."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.app import STORE
from relay.config.given_settings import load_config
from relay.config.parsers import Period
from relay.core.clock import Clock
from relay.core.errors import ConfigError
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.storage.chunks import decode, joined
from relay.storage.inspect import overview, reading
from relay.storage.retention import Retention
from relay.storage.store import Store
from relay.storage.verify import verify
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.sandbox import Sandbox
from tests.unit.test_history import FakeProvider
from tests.unit.test_history import final as candle

KEY = StreamKey("BTCUSDT", "1m")
HOURS = StreamKey("BTCUSDT", "1h")
BLOCK = 512 * 60
# Ten blocks of candles, all known, and a little more.
COUNT = 5200
NOW = 100 * BLOCK
FIRST = NOW - 10 * BLOCK


def minutes(start: int, end: int) -> list[Candle]:
    return [candle(time) for time in range(start, end, 60)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "relay.db", Clock())
    await store.add("fake", KEY, minutes(FIRST, FIRST + COUNT * 60), Span(0, FIRST + COUNT * 60))
    await store.add("fake", HOURS, [candle(3600), candle(7200)], Span(0, 7201))
    yield store
    await store.close()


def retention(store: Store, seconds: int, interval: str = "1m") -> Retention:
    return Retention(store, Clock(wall=lambda: NOW + 1000.0), [Period(interval, "", seconds)])


async def left(store: Store, key: StreamKey = KEY) -> list[Candle]:
    return await store.read("fake", key, 0, 1 << 40)


async def encoded(store: Store) -> list[Candle]:
    return decode(joined((await store.chunks("fake", KEY, 0, 1 << 40, 1 << 20, False)).chunks))


async def test_old_candles_go_in_whole_blocks_and_are_unknown_then(store: Store, tmp_path: Path) -> None:
    assert len(await encoded(store)) == COUNT
    keeper = retention(store, 3 * BLOCK + 5000)
    await keeper.sweep()
    # 1,000 s into a block, 5,000 s more than three blocks are kept: the fourth begins 4,000 s before, so it stays.
    oldest = NOW - 4 * BLOCK
    assert await left(store) == minutes(oldest, FIRST + COUNT * 60)
    assert await encoded(store) == minutes(oldest, FIRST + COUNT * 60)
    assert await store.spans("fake", KEY, 0, 1 << 40) == [Span(oldest, FIRST + COUNT * 60)]
    assert keeper.deleted == 6 * 512
    assert (await store.streams_summary()).candles == COUNT - 6 * 512 + 2
    with reading(str(tmp_path / "relay.db")) as connection:
        found = verify(connection, overview(connection, str(tmp_path / "relay.db")).streams, NOW + 10 * BLOCK)
    assert found.faults == []
    assert found.chunks > 0


async def test_intervals_without_a_period_are_kept(store: Store) -> None:
    await retention(store, 86_400).sweep()
    assert await left(store, HOURS) == [candle(3600), candle(7200)]
    await retention(store, 3600, "1s").sweep()
    assert len(await left(store)) == COUNT - (10 - 3) * 512


async def test_what_was_set_aside_grows_too_old_as_well(store: Store) -> None:
    await store.removals.set_aside("fake", KEY.symbol, "BTCUSDT~20231120T000000Z")
    keeper = retention(store, 3 * BLOCK + 5000)
    await keeper.sweep()
    assert keeper.deleted == 6 * 512
    assert len(await left(store, StreamKey("BTCUSDT~20231120T000000Z", "1m"))) == COUNT - 6 * 512


async def test_what_is_known_to_be_empty_stays_known_while_nothing_is_deleted(store: Store) -> None:
    await retention(store, 20 * BLOCK).sweep()
    assert await store.spans("fake", KEY, 0, 1 << 40) == [Span(0, FIRST + COUNT * 60)]


async def test_one_transaction_deletes_a_few_blocks_only(store: Store) -> None:
    seen = store.look()
    assert await store.removals.trim("fake", KEY, NOW, 1000) == 512
    assert not seen.has_all("fake", KEY)
    assert await store.removals.trim("fake", KEY, NOW, 2048) == 4 * 512
    assert await store.removals.trim("fake", KEY, NOW, 1 << 30) == 5 * 512
    assert await store.removals.trim("fake", KEY, NOW, 1 << 30) == 0
    assert await store.removals.trim("fake", StreamKey("NONE", "1m"), NOW, 100) == 0


async def test_all_of_a_stream_may_go(store: Store) -> None:
    await retention(store, 3600).sweep()
    await store.removals.trim("fake", KEY, FIRST + 20 * BLOCK, 1 << 30)
    assert await left(store) == []
    assert await encoded(store) == []
    assert await store.spans("fake", KEY, 0, 1 << 40) == []


async def test_live_candles_go_on_meanwhile(store: Store) -> None:
    assert len(await encoded(store)) == COUNT
    end = FIRST + COUNT * 60
    sweep = asyncio.create_task(retention(store, BLOCK).sweep())
    time = end
    while not sweep.done():
        store.put_closed("fake", KEY, candle(time), time - 60)
        time += 60
        await asyncio.sleep(0.001)
        assert (await encoded(store))[-1] == candle(time - 60)
    await sweep
    assert await encoded(store) == minutes(NOW - BLOCK, time)
    await store.flush()
    assert await left(store) == minutes(NOW - BLOCK, time)


async def test_history_asks_again_for_what_was_deleted(store: Store) -> None:
    provider = FakeProvider(range(FIRST, FIRST + COUNT * 60, 60), FIRST + COUNT * 60 + 1000)
    history = HistoryService(store, Clock())
    request: dict[str, Any] = {"start": FIRST, "end": FIRST + 100 * 60, "limit": 50}
    assert (await history.candles(HistoryRequest(provider, KEY, **request))).candles == tuple(
        minutes(FIRST, FIRST + 3000)
    )
    asked = len(provider.calls)
    await retention(store, BLOCK).sweep()
    assert (await history.candles(HistoryRequest(provider, KEY, **request))).candles == tuple(
        minutes(FIRST, FIRST + 3000)
    )
    assert len(provider.calls) > asked
    await history.close()


@pytest.mark.parametrize("form", ["values", "text"])
async def test_deleting_between_a_look_at_coverage_and_the_read_hides_nothing(store: Store, form: str) -> None:
    """The worst moment: what was covered when the request looked is gone when it reads."""
    provider = FakeProvider(range(FIRST, FIRST + COUNT * 60, 60), FIRST + COUNT * 60 + 1000)
    history = HistoryService(store, Clock())
    request: dict[str, Any] = {"start": FIRST, "end": None, "limit": 3000}
    # In memory: then looking needs no turn at the database, reading does.
    await store.spans("fake", KEY, 0, 1)
    trimming = asyncio.create_task(store.removals.trim("fake", KEY, NOW, 2048))
    await asyncio.sleep(0)
    expected = minutes(FIRST, FIRST + 3000 * 60)
    if form == "text":
        text = await history.text(HistoryRequest(provider, KEY, **request, live=lambda: None))
        assert decode(text.chunk) == expected
    else:
        assert list((await history.candles(HistoryRequest(provider, KEY, **request))).candles) == expected
    assert await trimming == 4 * 512
    await history.close()


# In a relay


async def test_a_relay_deletes_and_says_so(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock())
    await store.add("binance", KEY, minutes(FIRST, FIRST + COUNT * 60), Span(0, FIRST + COUNT * 60))
    await store.close()
    caplog.set_level(logging.INFO, "relay.storage.retention")
    relay = await relay_with(database=str(path), retention=(Period("1m", "1h", 3600),))
    await eventually(lambda: "deleted" in caplog.text)
    said = [record.getMessage() for record in caplog.records if record.name == "relay.storage.retention"]
    assert said == [f"deleted {COUNT:,} candles, older than retention allows"]
    assert (await relay.app[STORE].streams_summary()).candles == 0


# Configured


def test_periods_are_read_from_table_text_and_flag(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('[retention]\n1s = "7d"\n1m = "2y"\n')
    expected = (Period("1s", "7d", 604_800), Period("1m", "2y", 63_072_000))
    assert load_config({}, {}, str(file)).retention == expected
    assert load_config({}, {"RELAY_RETENTION": "1s=7d, 1m=2y"}).retention == expected
    assert load_config({"retention": "1h=12h"}, {}, str(file)).retention == (Period("1h", "12h", 43_200),)
    assert load_config({}, {}, None).retention == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1s=7", "--retention: '1s=7' has '7' for 1s; write a length such as 12h, 7d, 4w or 2y"),
        ("1s=0d", "has '0d' for 1s"),
        ("7m=7d", "contains '7m', which is not an interval; use 1s 1m 3m"),
        ("1s", "has '' for 1s"),
        ("1s=1d,1s=2d", "contains an interval twice"),
    ],
)
def test_a_wrong_period_is_said(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"retention": given}, {})
    assert said in str(caught.value)
