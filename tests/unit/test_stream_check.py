"""The checker of the candle contract finds in what a client was told what it is there to find."""

from collections.abc import Iterable

import pytest

from tests.support.soak import (
    ListedTruth,
    Message,
    StreamCheck,
)
from tests.support.untidy import Values

NOON = 1_764_028_800


def values(minute: int) -> Values:
    return 10.0 + minute, 12.0 + minute, 9.0 + minute, 11.0 + minute, 5.0


TRUTH = {NOON + 60 * minute: values(minute) for minute in range(12) if minute != 7}


def update(minute: int, *, closed: bool = True, shape: Values | None = None, **marks: bool) -> Message:
    names = ("open", "high", "low", "close", "volume")
    candle = {"time": NOON + 60 * minute, **dict(zip(names, shape or values(minute), strict=True))}
    return {"type": "price_update", "candle": candle, "is_closed": closed, **marks}


def snapshot(minutes: Iterable[int], *, last_is_closed: bool = True, complete: bool = True) -> Message:
    candles = [update(minute)["candle"] for minute in minutes]
    return {"type": "snapshot", "candles": candles, "last_is_closed": last_is_closed, "complete": complete}


def gap(start: int, end: int) -> Message:
    return {"type": "gap", "from": NOON + 60 * start, "to": NOON + 60 * end}


def judge(*messages: Message, since: int | None = None, finish: int | None = None) -> list[str]:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30, None if since is None else NOON + 60 * since)
    for message in messages:
        check.take(message)
    if finish is not None:
        check.finish(NOON + 60 * finish)
    return check.violations


@pytest.mark.parametrize(
    "messages",
    [
        [update(0), update(1), update(2)],
        [update(0, closed=False), update(0), update(1, closed=False), update(1)],
        [snapshot(range(5)), update(5), update(6), update(8)],
        [snapshot(range(3), last_is_closed=False), update(2), update(3)],
        [update(0), gap(1, 4), update(4)],
        [update(0), gap(1, 3), update(3), update(1, revised=True), update(2, revised=True), update(4)],
        [update(0), snapshot([4, 5], complete=False), update(6)],
    ],
)
def test_the_checker_lets_a_sound_sequence_pass(messages: list[Message]) -> None:
    assert judge(*messages) == []


OTHER = (10.0, 99.0, 1.0, 11.0, 5.0)


@pytest.mark.parametrize(
    ("planted", "messages"),
    [
        ("a hole", [update(0), update(2)]),
        ("a hole before an open candle", [update(0), update(2, closed=False)]),
        ("a candle never closed", [update(0, closed=False), update(1, closed=False)]),
        ("a first candle that was owed", [update(1)]),
        ("a duplicate", [update(0), update(0)]),
        ("an open state after the closing", [update(0), update(0, closed=False)]),
        ("time that goes back", [update(0), update(1), update(0)]),
        ("open time that goes back", [update(0), update(2, closed=False), update(1, closed=False)]),
        ("wrong values", [update(0, shape=OTHER)]),
        ("wrong values in a revision", [update(0), update(0, shape=OTHER, revised=True)]),
        ("an impossible open state", [update(0, closed=False, shape=OTHER), update(0)]),
        ("a revision that changes nothing", [update(0), update(0, revised=True)]),
        ("an open revision", [update(0), update(0, closed=False, revised=True)]),
        ("a candle that never was", [*(update(minute) for minute in range(7)), update(7)]),
        ("a hole in a snapshot", [snapshot([0, 1, 3])]),
        ("a snapshot out of order", [snapshot([0, 2, 1])]),
        ("a hole behind a snapshot", [snapshot([0, 1]), update(3)]),
        ("a snapshot repeated live", [snapshot([0, 1]), update(1)]),
        ("an empty gap", [update(0), gap(2, 2)]),
        ("a hole beside a gap", [update(0), gap(1, 2), update(3)]),
        ("a gap told too late", [update(0), update(2), gap(1, 2)]),
        ("an update that the snapshot held", [{**snapshot([0, 1]), "seq": 5}, {**update(2), "seq": 5}]),
    ],
)
def test_the_checker_finds(planted: str, messages: list[Message]) -> None:
    assert judge(*messages) != [], planted


def test_the_checker_finds_a_hole_after_a_resume() -> None:
    assert judge(update(4), since=2) != []
    assert judge(snapshot([4]), since=2) != []
    assert judge(snapshot([3]), since=2) == []


def test_the_checker_finds_a_resume_that_repeats() -> None:
    assert judge(snapshot([2, 3]), since=2) != []


def test_the_checker_lets_a_resume_bring_what_was_a_gap() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30)
    for message in (update(0), gap(1, 2), update(2, closed=False)):
        check.take(message)
    check.subscribed(NOON + 130, since=NOON)
    for message in (snapshot((1, 2), last_is_closed=False), update(2), update(3)):
        check.take(message)
    assert check.violations == []


def test_the_checker_finds_an_end_that_never_came() -> None:
    assert judge(update(0), update(1), finish=5) != []
    assert judge(update(0), update(1), finish=2) == []
    assert judge(finish=2) != []


def test_the_checker_finds_a_gap_that_is_never_repaired() -> None:
    broken = [update(0), gap(1, 3), update(3), update(1, revised=True)]
    assert judge(*broken, finish=4) != []
    assert judge(*broken, update(2, revised=True), finish=4) == []
    assert judge(update(6), gap(7, 8), update(8), finish=9) == judge(update(6), update(8), finish=9)


def test_the_checker_finds_a_complete_snapshot_that_is_old() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH))
    check.subscribed(NOON + 30)
    check.take(snapshot(range(3)), NOON + 60 * 4 + 10)
    assert check.violations == []
    check.subscribed(NOON + 30)
    check.take(snapshot(range(3)), NOON + 60 * 4 + 20)
    assert check.violations != []


def test_a_violation_names_the_moment_and_the_messages_around_it() -> None:
    check = StreamCheck("X@1m", ListedTruth(TRUTH), lambda: "second 3.0, rest_slow")
    check.subscribed(NOON + 30)
    for message in (update(0), update(2), update(3)):
        check.take(message, NOON + 200)
    (found,) = check.found
    lines = str(found).splitlines()
    assert lines[0] == f"X@1m: {NOON + 60} missing before {NOON + 120} (second 3.0, rest_slow)"
    assert [line.count('"time"') for line in lines[1:]] == [0, 1, 1, 1]
