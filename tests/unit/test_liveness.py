"""Silence of a stream: quiet markets are left alone, mute feeds are noticed in time."""

import random

import pytest

from relay.supervision.liveness import LEAST_PATIENCE_S, UNKNOWN_PATIENCE_S, Liveness, Remedy


class Watched:
    """A liveness that is ticked every second while a stream says something at the moments given."""

    def __init__(self, interval: str = "1m") -> None:
        self.now = 1000.0
        self.count = 0
        self.liveness = Liveness(interval, self.now)
        self.stale_at: list[float] = []
        self.replaced_at: list[float] = []

    def wait(self, seconds: float) -> None:
        """Let time pass without data; warn as a stream that is carried does."""
        for _ in range(int(seconds)):
            self.now += 1
            over_s = self.liveness.tick(self.now, self.count)
            remedy = None if over_s is None else self.liveness.warn(over_s)
            if remedy is Remedy.RESUBSCRIBE:
                self.stale_at.append(self.now)
            elif remedy is Remedy.REPLACE_FEED:
                self.replaced_at.append(self.now)

    def hear(self, messages: int = 1) -> None:
        self.count += messages

    def rhythm(self, pause_s: float, times: int) -> None:
        for _ in range(times):
            self.hear()
            self.wait(pause_s)

    def silent_until_stale(self) -> float:
        """Return after how many seconds of silence the stream is called stale."""
        self.hear()
        self.wait(1)
        began, before = self.now, len(self.stale_at)
        while len(self.stale_at) == before:
            self.wait(1)
            assert self.now < began + 100_000, "the stream is never called stale"
        return self.now - began


def test_a_busy_stream_that_goes_mute_is_stale_soon() -> None:
    watched = Watched("1s")
    watched.rhythm(1, 60)
    assert LEAST_PATIENCE_S < watched.silent_until_stale() <= LEAST_PATIENCE_S + 2


@pytest.mark.parametrize("interval", ["1m", "1h", "1d", "1M"])
def test_a_long_interval_does_not_make_a_mute_feed_wait(interval: str) -> None:
    watched = Watched(interval)
    watched.rhythm(2, 60)
    assert watched.silent_until_stale() <= LEAST_PATIENCE_S + 2


@pytest.mark.parametrize("pause_s", [5, 30, 60, 300])
def test_a_quiet_market_with_a_steady_rhythm_is_not_stale(pause_s: int) -> None:
    watched = Watched("5m")
    watched.rhythm(pause_s, 40)
    assert watched.stale_at == []


def test_a_thin_market_with_pauses_of_any_length_is_seldom_called_stale() -> None:
    watched, dice = Watched("1m"), random.Random(11)
    for _ in range(600):
        watched.rhythm(1 + dice.expovariate(1 / 40), 1)
    hours = (watched.now - 1000) / 3600
    assert len(watched.stale_at) / hours < 1


def test_a_stream_that_never_spoke_is_stale_after_its_interval_and_a_minute() -> None:
    watched = Watched("1m")
    watched.wait(60 + UNKNOWN_PATIENCE_S)
    assert watched.stale_at == []
    watched.wait(2)
    assert len(watched.stale_at) == 1


def test_a_market_that_grows_quiet_is_called_stale_ever_more_seldom() -> None:
    watched = Watched("1m")
    watched.rhythm(1, 100)
    watched.rhythm(300, 50)
    assert 1 <= len(watched.stale_at) <= 5


def test_a_quiet_night_does_not_blind_the_watch_on_a_busy_day() -> None:
    watched = Watched("1m")
    watched.rhythm(200, 20)
    watched.rhythm(1, 300)
    assert watched.silent_until_stale() < 2 * LEAST_PATIENCE_S


def test_a_mute_spell_does_not_blind_the_watch_on_the_next_one() -> None:
    watched = Watched("1s")
    watched.rhythm(1, 60)
    watched.wait(600)
    watched.rhythm(1, 60)
    assert watched.silent_until_stale() < 2 * LEAST_PATIENCE_S


def test_many_messages_between_two_looks_count_as_one_sign_of_life() -> None:
    watched = Watched("1s")
    for _ in range(30):
        watched.hear(50)
        watched.wait(1)
    assert watched.silent_until_stale() <= LEAST_PATIENCE_S + 2


def test_the_time_before_a_restart_is_no_silence() -> None:
    watched = Watched("1s")
    watched.rhythm(1, 60)
    watched.now += 500
    watched.liveness.restart(watched.now)
    watched.wait(LEAST_PATIENCE_S - 2)
    assert watched.stale_at == []


def test_data_ends_a_warning() -> None:
    watched = Watched("1s")
    watched.rhythm(1, 60)
    watched.silent_until_stale()
    watched.hear()
    watched.wait(1)
    assert watched.liveness.warnings == 0


def test_the_feed_of_a_silent_stream_is_replaced_ever_more_rarely() -> None:
    watched = Watched("1m")
    began = watched.now
    watched.wait(2000)
    # Its patience is two minutes; each further try comes when the silence is twice as long.
    assert watched.stale_at == [began + 121]
    assert watched.replaced_at == [began + 241, began + 481, began + 961, began + 1921]
