"""A place for one feed: who fits in, and how one feed follows another."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from relay import AuthenticationFailed, ProviderUnavailable, RateLimited, StreamKey, Watchlist
from relay.core.errors import Flooded
from relay.supervision.feed_slot import HURRY_S, FeedSlot
from relay.supervision.stream_state import SupervisedStream
from relay.supervision.timing import FeedTiming
from tests.support.conditions import eventually
from tests.support.supervised_provider import KEY, A, B, Rig, Scripted, make_live, rig_of, update


def state(supervised: SupervisedStream) -> str:
    return supervised.stream.status


@pytest.mark.parametrize(
    ("info", "fits_same_interval", "fits_other_interval"),
    [
        ({"streams_per_feed": 3}, True, True),
        ({"streams_per_feed": 2}, False, False),
        ({"streams_per_feed": 3, "one_interval_per_feed": True}, True, False),
    ],
)
async def test_room_is_limited_by_number_and_where_the_provider_says_so_by_interval(
    tmp_path: Path, info: dict[str, object], fits_same_interval: bool, fits_other_interval: bool
) -> None:
    async with rig_of(Scripted(**info), tmp_path) as rig:
        slot = rig.slot(rig.carry(A), rig.carry(B))
        assert slot.has_room(StreamKey("C", "1m")) is fits_same_interval
        assert slot.has_room(StreamKey("C", "5m")) is fits_other_interval


async def test_streams_of_one_request_share_the_first_feed_and_later_ones_join_it(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        slot.add(rig.carry(B))
        await eventually(lambda: plugin.feeds)
        assert plugin.feeds[0].watchlist.streams == (A, B)
        assert plugin.feeds[0].watchlist.version == 0
        later = StreamKey("C", "1m")
        slot.add(rig.carry(later))
        slot.remove(A)
        assert plugin.feeds[0].watchlist.streams == (B, later)
        assert not slot.is_empty
        slot.remove(B)
        slot.remove(later)
        assert slot.is_empty


async def test_a_feed_that_announces_its_end_is_ended_when_the_next_one_delivers(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised)
        await make_live(plugin, supervised.stream)
        for reason in ("going down", "really going down"):
            plugin.feeds[0].watchlist.closing(reason)
        await eventually(lambda: len(plugin.feeds) == 2)
        assert slot.open_feeds == 2
        assert not plugin.feeds[0].has_ended
        plugin.feeds[1].watchlist.accept([A])
        await eventually(lambda: slot.open_feeds == 1)
        assert [feed.has_ended for feed in plugin.feeds] == [True, False]
        assert supervised.stream.status == "connected"
        assert supervised.stream.reconnects == 0
        assert rig.attempts.sentences == {"going down": 1}
        assert rig.attempts.again == {"announced": 1}


async def test_a_next_feed_that_does_not_deliver_leaves_the_old_one_alone(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path, FeedTiming(ready_timeout_s=0.01)) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised)
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].watchlist.accept([A])
        plugin.feeds[0].watchlist.closing("going down")
        await eventually(lambda: len(plugin.feeds) > 1 and plugin.feeds[1].has_ended and slot.open_feeds == 1)
        assert not plugin.feeds[0].has_ended
        assert state(supervised) == "connected"


async def test_a_feed_that_ends_is_opened_again_after_the_wait_that_the_provider_asks_for(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        rig.slot(supervised)
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].say(update(A))
        plugin.feeds[0].end(RateLimited("slow down", 0.0))
        await eventually(lambda: len(plugin.feeds) == 2)
        assert state(supervised) == "reconnecting"
        assert rig.attempts.again == {"rate_limited": 1}
        plugin.feeds[1].watchlist.accept([A])
        assert state(supervised) == "connected"
        assert supervised.stream.reconnects == 1


async def test_waits_grow_for_a_feed_that_floods_after_each_price(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        rig.slot(rig.carry(A))
        for _ in range(2):
            await eventually(lambda: plugin.feeds and not plugin.feeds[-1].has_ended)
            plugin.feeds[-1].say(update(A))
            plugin.feeds[-1].end(Flooded("too many frames"))
            await eventually(lambda: plugin.feeds[-1].has_ended)
        await eventually(lambda: rig.attempts.again == {"bad_answer": 2})
    waits = [record.fields["wait_s"] for record in caplog.records if hasattr(record, "fields")]
    first, second = waits
    assert 1 <= first <= 2 <= second <= 4


async def test_a_provider_that_refuses_the_relay_is_not_asked_again(tmp_path: Path) -> None:
    plugin = Scripted(**KEY)
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A), rig.carry(B))
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].end(AuthenticationFailed("wrong key"))
        await slot.task
        assert rig.refused == [("A", "wrong key"), ("B", "wrong key")]
        assert rig.provider.refusal == "wrong key"
        assert slot.open_feeds == 0
        assert len(plugin.feeds) == 1


async def test_a_mute_feed_is_asked_again_for_its_stream_then_replaced(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        await eventually(lambda: plugin.feeds)
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A])
        slot.check_silence(rig.hands.now + 130)
        assert watchlist.wanted_since(A) == 2
        assert len(plugin.feeds) == 1
        slot.check_silence(rig.hands.now + 250)
        await eventually(lambda: len(plugin.feeds) == 2)
        assert rig.attempts.sentences == {"A@1m went silent": 1}
        assert rig.attempts.again == {"silent": 1}


async def test_the_end_of_a_slot_ends_its_feed(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        await eventually(lambda: plugin.feeds)
        slot.task.cancel()
        await eventually(slot.task.done)
        assert plugin.feeds[0].has_ended
        assert slot.open_feeds == 0


async def test_other_settings_replace_the_feed_before_it_ends(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised)
        await make_live(plugin, supervised.stream)
        rig.provider.reconfigure({"key": "new"})
        slot.renew()
        await eventually(lambda: len(plugin.feeds) == 2)
        assert not plugin.feeds[0].has_ended
        # They change once more while the second feed opens.
        rig.provider.reconfigure({"key": "newer"})
        slot.renew()
        plugin.feeds[1].watchlist.accept([A])
        await eventually(lambda: len(plugin.feeds) == 3)
        plugin.feeds[2].watchlist.accept([A])
        await eventually(lambda: slot.open_feeds == 1)
        assert [feed.has_ended for feed in plugin.feeds] == [True, True, False]
        assert (state(supervised), supervised.stream.reconnects) == ("connected", 0)
        assert rig.attempts.again == {"settings": 2}


async def test_other_settings_end_the_wait_for_the_next_feed(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].end(RateLimited("the credits of this day are used up", 3600.0))
        await eventually(lambda: slot.open_feeds == 0)
        rig.provider.reconfigure({"key": "new"})
        slot.renew()
        await eventually(lambda: len(plugin.feeds) == 2)


async def test_a_key_that_was_replaced_may_be_refused(tmp_path: Path) -> None:
    plugin = Scripted(**KEY)
    async with rig_of(plugin, tmp_path) as rig:
        rig.slot(rig.carry(A))
        await eventually(lambda: plugin.feeds)
        rig.provider.reconfigure({"key": "new"})
        plugin.feeds[0].end(AuthenticationFailed("the key was refused"))
        await eventually(lambda: len(plugin.feeds) == 2)
        assert (rig.provider.refusal, rig.refused) == (None, [])


async def test_a_new_key_that_is_refused_leaves_the_old_feed_alone_until_there_is_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted(**KEY)
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised)
        await make_live(plugin, supervised.stream)
        rig.provider.reconfigure({"key": "wrong"})
        slot.renew()
        await eventually(lambda: len(plugin.feeds) == 2)
        plugin.feeds[1].end(AuthenticationFailed("the key was refused"))
        await eventually(lambda: slot.open_feeds == 1)
        assert (state(supervised), rig.provider.refusal, rig.refused) == ("connected", None, [])
        assert "feed scripted 1 continues, because its replacement failed: the key was refused" in caplog.text
        rig.provider.reconfigure({"key": "right"})
        slot.renew()
        await eventually(lambda: len(plugin.feeds) == 3)
        plugin.feeds[2].watchlist.accept([A])
        await eventually(lambda: slot.open_feeds == 1 and plugin.feeds[0].has_ended)
        assert state(supervised) == "connected"


def has_at_least(plugin: Scripted, count: int) -> bool:
    return len(plugin.feeds) >= count


def has_feeds(plugin: Scripted, count: int) -> bool:
    return len(plugin.feeds) == count


@pytest.mark.parametrize("is_live", [False, True])
async def test_streams_know_when_the_next_attempt_is_while_the_provider_wants_to_be_left_alone(
    tmp_path: Path, is_live: bool
) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        slot = rig.slot(one)
        await eventually(lambda: plugin.feeds)
        if is_live:
            plugin.feeds[0].watchlist.accept([A])
        plugin.feeds[0].end(RateLimited("HTTP 429", 600.0))
        await eventually(lambda: one.stream.status == "throttled")
        # Half a minute after 16:00:00, and ten minutes later.
        assert one.stream.message == "HTTP 429; the next attempt is at 2025-11-24T16:10:30Z"
        late = rig.carry(B)
        rig.hands.now += 60
        slot.add(late)
        assert (late.stream.status, late.stream.message) == (one.stream.status, one.stream.message)
        slot.renew()
        await eventually(lambda: len(plugin.feeds) == 2)
        status = "reconnecting" if is_live else "connecting"
        assert (one.stream.status, one.stream.message) == (status, "HTTP 429; the next attempt is under way")


async def test_streams_know_when_a_lost_feed_is_opened_again(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        rig.slot(one)
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].end(ProviderUnavailable("HTTP 503"))
        await eventually(lambda: "HTTP 503" in one.stream.message)
        assert one.stream.status == "connecting"
        assert one.stream.message.startswith("HTTP 503; the next attempt is at 2025-11-24T16:00:3")


async def opened_within(plugin: Scripted, seconds: float, before: int) -> bool:
    await asyncio.sleep(seconds)
    return len(plugin.feeds) > before


async def test_a_provider_that_is_back_ends_the_pause_before_a_feed_once(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        for number in range(1, 6):
            await eventually(partial(has_feeds, plugin, number))
            plugin.feeds[-1].end(ProviderUnavailable("HTTP 503"))
            await eventually(lambda: plugin.feeds[-1].has_ended)
        # The next pause is one of 15 s and more.
        assert not await opened_within(plugin, HURRY_S, 5)
        slot.hurry()
        assert await opened_within(plugin, HURRY_S, 5)
        plugin.feeds[-1].end(ProviderUnavailable("HTTP 503"))
        assert not await opened_within(plugin, 10.0, 6)


async def test_a_provider_that_is_back_while_a_feed_is_being_opened_ends_the_pause_after_that(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        for number in range(1, 6):
            await eventually(partial(has_feeds, plugin, number))
            if number == 5:
                slot.hurry()
            plugin.feeds[-1].end(ProviderUnavailable("HTTP 503"))
            await eventually(lambda: plugin.feeds[-1].has_ended)
        assert await opened_within(plugin, HURRY_S, 5)
        # Once: what fails after that fails for another reason.
        plugin.feeds[-1].end(ProviderUnavailable("HTTP 503"))
        assert not await opened_within(plugin, 10.0, 6)
        slot.hurry()
        await eventually(partial(has_feeds, plugin, 7))
        plugin.feeds[-1].end(RateLimited("HTTP 429", 600.0))
        assert not await opened_within(plugin, 10.0, 7)


async def test_a_pause_that_the_provider_asks_for_is_not_ended_by_others(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A))
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].end(RateLimited("HTTP 429", 600.0))
        await eventually(lambda: plugin.feeds[0].has_ended)
        slot.hurry()
        assert not await opened_within(plugin, 10.0, 1)


async def test_a_feed_that_delivers_after_a_loss_says_so_once(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised)
        await make_live(plugin, supervised.stream)
        assert not slot.takes_comeback()
        plugin.feeds[0].end(ProviderUnavailable("HTTP 503"))
        await eventually(partial(has_feeds, plugin, 2))
        assert not slot.takes_comeback()
        plugin.feeds[1].say(update(A))
        await eventually(lambda: state(supervised) == "connected")
        assert [slot.takes_comeback(), slot.takes_comeback()] == [True, False]


async def test_a_provider_without_a_key_refuses_none(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        rig.slot(one)
        for number in range(1, 3):
            await eventually(partial(has_feeds, plugin, number))
            plugin.feeds[-1].end(AuthenticationFailed("the connection was refused with HTTP 401"))
            await eventually(lambda: "HTTP 401" in one.stream.message)
            assert one.stream.status == "connecting"
            assert rig.provider.refusal is None
        await eventually(lambda: len(plugin.feeds) == 3)
        assert rig.refused == []


async def test_a_stream_that_is_never_answered_is_asked_for_again_in_growing_distances(tmp_path: Path) -> None:
    plugin = Scripted()
    late = StreamKey("C", "1m")
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A), rig.carry(B), rig.carry(late))
        await eventually(lambda: plugin.feeds)
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A])
        wishes = {key: watchlist.wanted_since(key) for key in (A, B, late)}
        asked = []
        for second in range(110):
            slot.check_silence(rig.hands.now + second)
            for key, wish in wishes.items():
                if watchlist.wanted_since(key) != wish:
                    wishes[key] = watchlist.wanted_since(key)
                    asked.append((key.symbol, second))
            if second == 31:
                watchlist.accept([late])
        assert asked == [("B", 30), ("C", 30), ("B", 90)]


async def test_a_stream_that_its_feed_does_not_try_again_as_it_said_is_asked_for_again(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A), rig.carry(B))
        await eventually(lambda: plugin.feeds)
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A, B])
        watchlist.lose(B, ProviderUnavailable("its call failed"), 5.0)
        assert asked_again(slot, rig.hands.now, watchlist, range(100)) == [35, 95]


async def test_a_stream_that_its_feed_tries_again_and_again_is_left_to_it(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        slot = rig.slot(rig.carry(A), rig.carry(B))
        await eventually(lambda: plugin.feeds)
        watchlist, began = plugin.feeds[0].watchlist, rig.hands.now
        watchlist.accept([A, B])
        for second in range(0, 300, 20):
            rig.hands.now = began + second
            watchlist.lose(B, ProviderUnavailable("its call failed"), 5.0)
            assert asked_again(slot, began, watchlist, range(second, second + 20)) == []
        # However late the next attempt is said to be.
        watchlist.lose(B, ProviderUnavailable("its call failed"), 900.0)
        assert asked_again(slot, began, watchlist, range(300, 1180)) == []
        watchlist.lose(B, ProviderUnavailable("its call failed"), 1e9)
        assert asked_again(slot, began, watchlist, range(1180, 3950)) == [280 + 3600 + 30]


def asked_again(slot: FeedSlot, began: float, watchlist: Watchlist, seconds: range) -> list[int]:
    """Return when B was asked for again while it was looked at each second."""
    wish, asked = watchlist.wanted_since(B), []
    for second in seconds:
        slot.check_silence(began + second)
        if watchlist.wanted_since(B) != wish:
            wish = watchlist.wanted_since(B)
            asked.append(second)
    return asked


async def test_a_feed_that_reports_no_answers_is_asked_again_late_for_a_stream_that_it_never_delivered(
    tmp_path: Path,
) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised, rig.carry(B))
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].say(update(A))
        await eventually(lambda: supervised.received)
        watchlist, wish = plugin.feeds[0].watchlist, plugin.feeds[0].watchlist.wanted_since(B)
        for second in range(300):
            slot.check_silence(rig.hands.now + second)
        assert watchlist.wanted_since(B) == wish
        slot.check_silence(rig.hands.now + 300)
        assert watchlist.wanted_since(B) > wish


async def test_a_feed_that_reports_no_answers_is_not_asked_again_for_a_quiet_stream(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        slot = rig.slot(supervised, rig.carry(B))
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].say(update(A))
        await eventually(lambda: supervised.received)
        version = plugin.feeds[0].watchlist.version
        for second in range(60):
            slot.check_silence(rig.hands.now + second)
        assert plugin.feeds[0].watchlist.version == version


@pytest.mark.parametrize("turns", range(8))
async def test_a_supervisor_that_is_closed_just_after_a_last_stream_left_waits_for_the_end_of_its_feed(
    tmp_path: Path, turns: int
) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervisor = rig.supervisor()
        stream = rig.hub.stream(rig.provider.name, A, A.symbol, supervisor)
        supervisor.wanted(stream)
        await make_live(plugin, stream)
        supervisor.unwanted(stream)
        for _ in range(turns):
            await asyncio.sleep(0)
        await supervisor.close()
        assert plugin.feeds[0].has_ended


def another_was_told(rig: Rig, seconds: float) -> None:
    rig.provider.feed_waits.hear(seconds, "Scripted asked another relay to wait")


async def test_no_feed_is_opened_while_another_relay_has_to_wait(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 600.0)
        one = rig.carry(A)
        slot = rig.slot(one)
        await eventually(lambda: one.stream.status == "throttled")
        message = "Scripted asked another relay to wait; the next attempt is at 2025-11-24T16:10:30Z"
        assert one.stream.message == message
        # Streams come and go meanwhile, and all else that ends other pauses does not end this one.
        rig.hands.now += 60
        late = rig.carry(B)
        slot.add(late)
        assert (late.stream.status, late.stream.message) == ("throttled", message)
        slot.remove(A)
        slot.hurry()
        slot.check_silence(rig.hands.now)
        slot.renew()
        assert not await opened_within(plugin, 590.0, 0)
        assert rig.attempts.connects == 0
        await eventually(partial(has_feeds, plugin, 1))
        assert plugin.feeds[0].watchlist.streams == (B,)
        assert state(late) == "connecting"
        plugin.feeds[0].watchlist.accept([B])
        assert state(late) == "connected"


async def test_a_wait_that_grows_is_kept_to_until_its_end(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 10.0)
        one = rig.carry(A)
        rig.slot(one)
        assert not await opened_within(plugin, 9.0, 0)
        another_was_told(rig, 20.0)
        assert not await opened_within(plugin, 19.0, 0)
        assert await opened_within(plugin, 1.5, 0)


async def test_feeds_are_not_opened_all_at_once_after_a_wait(tmp_path: Path) -> None:
    plugin = Scripted(streams_per_feed=1)
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 60.0)
        supervisor = rig.supervisor()
        now, opened = asyncio.get_running_loop().time, list[float]()
        begun = now()
        streams = [rig.hub.stream("scripted", StreamKey(f"S{number}", "1m"), "", supervisor) for number in range(20)]
        for stream in streams:
            supervisor.wanted(stream)
        for number in range(1, 21):
            await eventually(partial(has_at_least, plugin, number))
            opened.append(now() - begun)
        assert 60.0 <= opened[0] < 60.0 + HURRY_S / 4
        assert 60.0 + HURRY_S / 2 < opened[-1] < 60.5 + HURRY_S
        assert len({round(at, 1) for at in opened}) > 5


async def test_a_feed_that_is_refused_after_a_wait_holds_up_the_others(tmp_path: Path) -> None:
    plugin = Scripted(streams_per_feed=1)
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 60.0)
        supervisor = rig.supervisor()
        for number in range(20):
            supervisor.wanted(rig.hub.stream("scripted", StreamKey(f"S{number}", "1m"), "", supervisor))
        await eventually(partial(has_at_least, plugin, 1))
        plugin.feeds[0].end(RateLimited("HTTP 429", 60.0, by_provider=True))
        await asyncio.sleep(50.0)
        assert len(plugin.feeds) < 5


async def test_a_wait_that_is_heard_in_the_pause_after_a_loss_is_kept_to(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        rig.slot(one)
        await make_live(plugin, one.stream)
        plugin.feeds[0].end(ProviderUnavailable("HTTP 503"))
        await eventually(lambda: state(one) == "reconnecting")
        another_was_told(rig, 60.0)
        await eventually(lambda: state(one) == "throttled")
        assert not await opened_within(plugin, 50.0, 1)
        assert await opened_within(plugin, 10.0, 1)
        assert state(one) == "reconnecting"


async def test_other_settings_end_a_wait(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 600.0)
        one = rig.carry(A)
        slot = rig.slot(one)
        await eventually(lambda: state(one) == "throttled")
        rig.provider.reconfigure({})
        slot.renew()
        assert await opened_within(plugin, HURRY_S + 0.5, 0)
        assert state(one) == "connecting"


async def test_a_slot_can_be_ended_in_a_wait(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        another_was_told(rig, 600.0)
        one = rig.carry(A)
        slot = rig.slot(one)
        await eventually(lambda: state(one) == "throttled")
        slot.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slot.task
        assert (slot.open_feeds, plugin.feeds) == (0, [])


async def test_a_feed_that_is_open_goes_on_and_its_replacement_waits(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        slot = rig.slot(one)
        await make_live(plugin, one.stream)
        another_was_told(rig, 60.0)
        plugin.feeds[0].watchlist.closing("going down")
        later = rig.carry(B)
        slot.add(later)
        plugin.feeds[0].watchlist.accept([B])
        assert not await opened_within(plugin, 55.0, 1)
        assert (state(one), state(later), plugin.feeds[0].has_ended) == ("connected", "connected", False)
        assert await opened_within(plugin, 6.0, 1)
        plugin.feeds[1].watchlist.accept([A, B])
        await eventually(lambda: plugin.feeds[0].has_ended)
        assert (state(one), one.stream.reconnects) == ("connected", 0)


async def test_streams_of_a_feed_that_ends_before_it_may_be_replaced_know_until_when(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        one = rig.carry(A)
        rig.slot(one)
        await make_live(plugin, one.stream)
        another_was_told(rig, 60.0)
        plugin.feeds[0].watchlist.closing("going down")
        assert not await opened_within(plugin, 5.0, 1)
        plugin.feeds[0].end(ProviderUnavailable("it went down"))
        await eventually(lambda: state(one) == "reconnecting")
        await eventually(lambda: state(one) == "throttled")
        assert not await opened_within(plugin, 50.0, 1)
        assert await opened_within(plugin, 6.0, 1)


async def test_a_refusal_of_one_feed_holds_for_all_of_them(tmp_path: Path) -> None:
    plugin, told = Scripted(), list[float]()
    async with rig_of(plugin, tmp_path) as rig:
        rig.provider.feed_waits.on_told = told.append
        one, other = rig.carry(A), rig.carry(B)
        rig.slot(one)
        await eventually(partial(has_feeds, plugin, 1))
        plugin.feeds[0].end(RateLimited("HTTP 429", 60.0, by_provider=True))
        await eventually(lambda: state(one) == "throttled")
        rig.slot(other)
        await eventually(lambda: state(other) == "throttled")
        assert other.stream.message.startswith("HTTP 429; the next attempt is at 2025-11-24T16:01:")
        assert told == [60.0]
        assert not await opened_within(plugin, 59.0, 1)
        await eventually(partial(has_feeds, plugin, 3))


async def test_what_the_provider_said_of_the_settings_of_before_is_nobodys_wait(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        rig.slot(rig.carry(A))
        await eventually(partial(has_feeds, plugin, 1))
        rig.provider.reconfigure({})
        plugin.feeds[0].end(RateLimited("HTTP 429", 60.0, by_provider=True))
        await eventually(partial(has_feeds, plugin, 2))
        assert rig.provider.feeds_wait() is None
