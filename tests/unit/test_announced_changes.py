"""What a provider says of its past when it is asked: taken once, in the next run too, and only once it is written."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from relay import PastChange, ProviderUnavailable, StreamKey, hookimpl
from relay.core.saved_value import Memory
from relay.supervision.announced_changes import AnnouncedChanges
from tests.support.supervised_provider import Remembering, Rig, rig_of

TTL_S = 3600.0


class Listing(Remembering):
    """Lists `changes`, unless it fails."""

    def __init__(self) -> None:
        super().__init__(instruments_ttl_s=TTL_S)
        self.changes: list[PastChange] = []
        self.since: list[int | None] = []
        self.failures = 0

    @hookimpl
    async def relay_past_changes(self, since: int | None) -> list[PastChange]:
        self.since.append(since)
        if self.failures:
            self.failures -= 1
            raise ProviderUnavailable("closed for today")
        return self.changes


class Saved:
    """Where a memory is kept over runs."""

    def __init__(self) -> None:
        self.body: bytes | None = None

    async def write(self, body: bytes) -> bool:
        self.body = body
        return True

    def memory(self) -> Memory:
        return Memory(self.body, self.write)


async def asked(rig: Rig, saved: Saved, seconds: float) -> None:
    announced = AnnouncedChanges(rig.provider, rig.past_changes, rig.history, rig.hands.clock, saved.memory())
    announced.start()
    await asyncio.sleep(seconds)
    await announced.close()


async def test_a_change_is_taken_once_in_all_runs(tmp_path: Path) -> None:
    saved, first, second = Saved(), PastChange(StreamKey("X", "1d"), 600), PastChange(StreamKey("Y", "1d"), 600)
    plugin = Listing()
    plugin.changes = [first, first]
    async with rig_of(plugin, tmp_path) as rig:
        await asked(rig, saved, 2.5 * TTL_S)
        assert (rig.past_changes.count, len(plugin.since), plugin.since[0]) == (1, 3, None)
    again = Listing()
    again.changes = [first, second]
    async with rig_of(again, tmp_path) as rig:
        await asked(rig, saved, 1.0)
        assert rig.past_changes.count == 1
        assert again.since == [int(rig.hands.now)]
    saved.body = orjson.dumps({"asked_at": "yesterday", "taken": [[1]]})
    async with rig_of(again, tmp_path) as rig:
        await asked(rig, saved, 1.0)
        assert rig.past_changes.count == 2


async def test_a_provider_that_fails_is_asked_again_with_growing_pauses(tmp_path: Path) -> None:
    plugin = Listing()
    plugin.failures = 5
    plugin.changes = [PastChange(StreamKey("X", "1d"), 600)]
    async with rig_of(plugin, tmp_path) as rig:
        await asked(rig, Saved(), 300.0)
        assert (len(plugin.since), rig.past_changes.count) == (5, 0)
        await asked(rig, Saved(), 400.0)
        assert rig.past_changes.count == 1


async def test_nothing_is_noted_before_it_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    saved, plugin = Saved(), Listing()
    plugin.changes = [PastChange(StreamKey("X", "1d"), 600)]

    async def refuse(*_: object) -> None:
        raise OverflowError

    async with rig_of(plugin, tmp_path) as rig:
        with monkeypatch.context() as patch:
            patch.setattr("relay.storage.sql.Tables.void", refuse)
            await asked(rig, saved, 100.0)
            assert (rig.past_changes.count, saved.body) == (1, None)
        await asked(rig, saved, 100.0)
        assert saved.body is not None
