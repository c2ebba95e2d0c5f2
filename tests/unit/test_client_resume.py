"""How the client goes on with one stream: what it asks for, and what its reader sees of what comes."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.messages import Gap, Message, Snapshot, Update
from relay.client.resume import Progress, StreamOptions
from relay.core.model import Candle, StreamKey

BTC = StreamKey("BTCUSDT", "1m")
START = 1_764_000_000


def candle(time: int) -> Candle:
    return Candle(time, 1.0, 2.0, 0.5, 1.5, 1.0)


def update(time: int, *, is_closed: bool = True, is_revised: bool = False) -> Update:
    return Update(BTC, candle(time), is_closed, False, is_revised, None, None, {})


def snapshot(*times: int, last_is_closed: bool = False, is_complete: bool = True) -> Snapshot:
    return Snapshot(BTC, tuple(map(candle, times)), last_is_closed, is_complete, 9, {})


def gap(start: int, end: int) -> Gap:
    return Gap(BTC, start, end, "", {})


def under_way(interval: str = "1m", last: int = START) -> Progress:
    """Return a progress that saw one candle close."""
    progress = Progress(interval, StreamOptions())
    progress.confirm(last)
    assert progress.take_update(update(last))
    progress.confirm(last + 60)
    return progress


def gaps_of(messages: Sequence[Message]) -> list[tuple[int, int]]:
    return [(message.start, message.end) for message in messages if isinstance(message, Gap)]


def test_first_request_is_what_was_asked_for() -> None:
    assert Progress("1m", StreamOptions()).request() == {}
    everything = StreamOptions(bars=5, since=START, throttle_ms=100, closed_only=True)
    assert Progress("1m", everything).request() == {
        "bars": 5,
        "since": START,
        "throttle_ms": 100,
        "closed_only": True,
    }


def test_request_after_something_came_goes_on_behind_it() -> None:
    progress = Progress("1m", StreamOptions(bars=2, throttle_ms=100))
    progress.confirm(START)
    progress.take_snapshot(snapshot(START, START + 60), START + 70)
    assert progress.request() == {"since": START, "throttle_ms": 100}
    progress.take_update(update(START + 60))
    assert progress.request() == {"since": START + 60, "throttle_ms": 100}


def test_candle_seen_only_open_is_asked_for_again() -> None:
    progress = Progress("1m", StreamOptions())
    progress.confirm(START + 10)
    progress.take_update(update(START, is_closed=False))
    assert progress.request() == {"since": START - 1}


@pytest.mark.parametrize(("interval", "length_s"), [("1s", 1), ("1h", 3600), ("1w", 604_800), ("1M", 31 * 86_400)])
def test_stream_of_which_nothing_came_owes_the_candle_that_was_open_when_it_was_confirmed(
    interval: str, length_s: int
) -> None:
    progress = Progress(interval, StreamOptions(closed_only=True))
    progress.confirm(START)
    progress.confirm(START + 1_000_000)
    assert progress.request() == {"since": START - length_s, "closed_only": True}


def test_bars_are_asked_for_until_they_came() -> None:
    progress = Progress("1m", StreamOptions(bars=3))
    progress.confirm(START)
    assert progress.request() == {"bars": 3}
    progress.take_snapshot(snapshot(), START)
    assert progress.request() == {"since": START - 60}


@pytest.mark.parametrize(
    ("bars", "after_s", "asked"),
    [(3, 0, 3), (3, 59, 3), (3, 60, 3), (3, 120, 4), (3, 6000, 102), (3, 10**6, 5000), (200, 600, 200)],
)
def test_before_the_first_snapshot_as_many_bars_are_asked_for_as_are_owed(bars: int, after_s: int, asked: int) -> None:
    """A relay that was killed, or waited for its provider: what has closed since the stream was confirmed is owed."""
    progress = Progress("1m", StreamOptions(bars=bars))
    assert progress.request(START) == {"bars": bars}
    progress.confirm(START)
    assert progress.request(START + after_s) == {"bars": asked}


def test_first_snapshot_is_told_as_it_came() -> None:
    progress = Progress("1m", StreamOptions(bars=2))
    progress.confirm(START)
    first = snapshot(START, START + 60, is_complete=False)
    assert progress.take_snapshot(first, START + 70) == [first]


def test_snapshot_of_a_resume_is_told_as_updates() -> None:
    closed, opened = under_way().take_snapshot(snapshot(START, START + 60, START + 120), START + 130)
    assert isinstance(closed, Update)
    assert isinstance(opened, Update)
    assert (closed.candle.time, closed.is_closed, closed.is_backfilled) == (START + 60, True, True)
    assert (opened.candle.time, opened.is_closed, opened.is_backfilled) == (START + 120, False, False)
    assert (closed.seq, closed.wire["backfilled"], "backfilled" in opened.wire) == (9, True, False)


def test_revision_is_told_however_old() -> None:
    progress = under_way()
    assert not progress.take_update(update(START - 600))
    assert progress.take_update(update(START - 600, is_revised=True))


def test_revision_to_what_the_reader_has_is_not_told() -> None:
    progress = under_way()
    assert not progress.take_update(update(START, is_revised=True))
    revised = Update(BTC, candle(START)._replace(close=1.25), True, False, True, None, None, {})
    assert progress.take_update(revised)
    assert not progress.take_update(revised)
    assert progress.take_update(update(START, is_revised=True))


def test_what_a_revision_brought_of_a_gap_is_not_brought_again() -> None:
    progress = under_way()
    progress.take_gap(gap(START + 60, START + 120))
    assert progress.take_update(update(START + 120, is_closed=False))
    assert progress.take_update(update(START + 60, is_revised=True))
    assert not progress.take_update(update(START + 60, is_closed=False))
    (opened,) = progress.take_snapshot(snapshot(START + 60, START + 120), START + 130)
    assert isinstance(opened, Update)
    assert (opened.candle.time, opened.is_closed, progress.resume_from()) == (START + 120, False, START + 60)


def test_what_came_before_the_first_candle_is_not_told() -> None:
    progress = Progress("1m", StreamOptions(bars=1))
    progress.confirm(START + 10)
    progress.take_snapshot(snapshot(START), START + 10)
    (opened,) = progress.take_snapshot(snapshot(START - 60, START), START + 20)
    assert isinstance(opened, Update)
    assert (opened.candle.time, opened.is_closed) == (START, False)
    assert progress.take_update(update(START - 60, is_revised=True))


def test_open_candle_never_goes_back() -> None:
    progress = under_way()
    progress.take_gap(gap(START + 60, START + 120))
    assert progress.take_update(update(START + 120, is_closed=False))
    assert not progress.take_update(update(START + 60, is_closed=False))
    assert progress.take_update(update(START + 60))


@pytest.mark.parametrize(
    ("times", "gaps"),
    [
        ([60, 120, 180], []),
        ([180, 240], [(60, 180)]),
        ([60, 240, 300], [(120, 240)]),
        ([120, 240, 300], [(60, 120), (180, 240)]),
        ([], [(60, 300)]),
    ],
)
def test_what_a_resume_lacks_is_told_as_gaps(times: list[int], gaps: list[tuple[int, int]]) -> None:
    past = snapshot(*(START + time for time in times), is_complete=False)
    found = under_way().take_snapshot(past, START + 310)
    assert gaps_of(found) == [(START + start, START + end) for start, end in gaps]
    assert [one.wire["to"] for one in found if isinstance(one, Gap)] == [START + end for _, end in gaps]


def test_candle_that_is_open_now_is_no_gap() -> None:
    assert gaps_of(under_way().take_snapshot(snapshot(is_complete=False), START + 119)) == []
    assert gaps_of(under_way().take_snapshot(snapshot(is_complete=False), START + 120)) == [(START + 60, START + 120)]


def test_a_relay_that_tells_of_a_gap_tells_of_all_and_the_rest_is_a_closed_market() -> None:
    progress = under_way()
    progress.take_gap(gap(START + 120, START + 240))
    found = progress.take_snapshot(snapshot(START + 60, START + 240, START + 360, is_complete=False), START + 370)
    assert gaps_of(found) == []


def test_gap_of_an_earlier_connection_hides_none() -> None:
    progress = under_way()
    progress.take_gap(gap(START - 120, START))
    progress.confirm(START + 600)
    assert gaps_of(progress.take_snapshot(snapshot(START + 120, is_complete=False), START + 130)) == [
        (START + 60, START + 120)
    ]


def test_gap_of_months_ends_where_one_opens() -> None:
    september, october, december = 1_756_684_800, 1_759_276_800, 1_764_547_200
    found = under_way("1M", september).take_snapshot(snapshot(is_complete=False), december + 86_400)
    assert gaps_of(found) == [(october, december)]


def test_gap_of_weeks_ends_where_the_venue_opens_one() -> None:
    sunday, week = 1_763_856_000, 604_800
    found = under_way("1w", sunday).take_snapshot(snapshot(is_complete=False), sunday + 2 * week + 90_000)
    assert gaps_of(found) == [(sunday + week, sunday + 2 * week)]


def test_interval_that_only_a_newer_relay_has_is_resumed_too() -> None:
    progress = under_way("7m")
    assert progress.request() == {"since": START}
    found = progress.take_snapshot(snapshot(START + 840, START + 1260, START + 1680, is_complete=False), START + 1700)
    assert gaps_of(found) == [(START + 1, START + 840)]
    fresh = Progress("7m", StreamOptions(closed_only=True))
    fresh.confirm(START)
    assert fresh.request() == {"closed_only": True}


@given(
    bars=st.none() | st.integers(0, 4),
    closed_only=st.booleans(),
    steps=st.lists(st.sampled_from(["tick", "close", "lose", "quiet", "repeat"]), max_size=40),
)
def test_every_closed_candle_comes_once_and_in_order_wherever_connections_end(
    bars: int | None, closed_only: bool, steps: list[str]
) -> None:
    world = World()
    reader = Reader(world, StreamOptions(bars=bars, closed_only=closed_only))
    for step in [*steps, "lose", "close"]:
        match step:
            case "tick":
                reader.hear(update(world.open_time, is_closed=False))
            case "close":
                reader.hear(update(world.open_time))
                world.open_time += 60
            case "quiet":
                # It closes while nobody is connected.
                world.open_time += 60
                reader.connect()
            case "lose":
                reader.connect()
            case "repeat":
                reader.hear(update(world.open_time - 60))
    expected = list(range(reader.closed[0], world.open_time, 60))
    assert reader.closed == expected
    assert reader.closed[0] <= World.open_time


class World:
    """A market that has a past. It is 30 s into the candle that is open."""

    open_time = START

    def past(self, request: dict[str, int | bool]) -> Snapshot | Update | None:
        first = max(START - 600, request.get("since", START - 600) + 1)
        closed = [time for time in range(START - 600, self.open_time, 60) if time >= first]
        times = closed if request.get("closed_only") else [*closed, self.open_time]
        bars = request.get("bars")
        if bars is None and "since" not in request:
            return None if request.get("closed_only") else update(self.open_time, is_closed=False)
        if bars is not None:
            times = times[len(times) - min(bars, len(times)) :]
        return snapshot(*times, last_is_closed=bool(request.get("closed_only")))


class Reader:
    """An application behind a `Progress`; `closed` is what it saw of candles that closed."""

    def __init__(self, world: World, options: StreamOptions) -> None:
        self.closed: list[int] = []
        self._world = world
        self._progress = Progress("1m", options)
        self._takes_open = not options.closed_only
        self.connect()

    def connect(self) -> None:
        request = self._progress.request()
        self._progress.confirm(self._world.open_time + 30)
        past = self._world.past(request)
        if past is not None:
            self.hear(past)

    def hear(self, message: Snapshot | Update) -> None:
        if isinstance(message, Snapshot):
            for told in self._progress.take_snapshot(message, self._world.open_time + 30):
                self._see(told)
        elif (message.is_closed or self._takes_open) and self._progress.take_update(message):
            self._see(message)

    def _see(self, message: Message) -> None:
        if isinstance(message, Update) and message.is_closed:
            self.closed.append(message.candle.time)
        elif isinstance(message, Snapshot):
            times = [candle.time for candle in message.candles]
            self.closed += times if message.last_is_closed else times[:-1]
