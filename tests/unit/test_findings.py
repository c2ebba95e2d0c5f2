"""The names of faults are a closed list that the guide explains, and values that differ are explained to the author."""

import re
from pathlib import Path

import pytest

from relay import BadAnswer, Candle
from relay.testing import DoesNotConform, FaultName, Finding
from relay.testing.comparison import compared, compared_open
from relay.testing.findings import ADVICE, candle_text, fault_of_update, utc
from relay.testing.watched_feed import shown
from tests.support.mutants import MUTANTS

GUIDE = (Path(__file__).parents[2] / "providers" / "README.md").read_text(encoding="utf-8")
PAST = Candle(1_772_620_800, 10.0, 14.0, 9.0, 12.0, 3.0)


def guide_of(heading: str) -> str:
    """Return a section of the guide."""
    return GUIDE.partition(f"\n### {heading}\n")[2].partition("\n##")[0]


def test_guide_explains_each_fault_in_the_words_of_the_check() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", guide_of("Faults"), re.MULTILINE)
    assert {name: (meaning, look_at) for name, meaning, look_at in rows} == {
        str(fault): tuple(advice) for fault, advice in ADVICE.items()
    }
    assert set(ADVICE) == set(FaultName)


def test_an_author_reads_what_an_error_keeps_from_clients() -> None:
    error = BadAnswer("Shop described A wrongly", detail="provider shop: it is of\nB, not of A")
    assert shown(error) == "BadAnswer: Shop described A wrongly (provider shop: it is of B, not of A)"
    assert shown(TimeoutError()) == "TimeoutError"


def test_mutants_have_names_of_their_own_and_cover_most_faults() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20
    # These have tests of their own, in `test_testing.py` and `test_mutants.py`.
    assert set(FaultName) - {mutant.fault for mutant in MUTANTS} == {
        FaultName.NOT_LOADED,
        FaultName.BLOCKS_LOOP,
        FaultName.GRACE_TOO_SHORT,
        FaultName.LEAKS_SECRET,
    }


@pytest.mark.parametrize(
    ("live", "fault", "why"),
    [
        (PAST, None, ""),
        (PAST._replace(volume=3.0000001), None, ""),
        (PAST._replace(open=12.0, close=10.0), FaultName.LIVE_PRICES_DIFFER, "open and close are swapped"),
        (Candle(PAST.time, 1000, 1400, 900, 1200, 3), FaultName.LIVE_PRICES_DIFFER, "all prices are 100 times as much"),
        (PAST._replace(high=15.0), FaultName.LIVE_PRICES_DIFFER, "has another high in the stream"),
        (PAST._replace(volume=36.0), FaultName.LIVE_VOLUME_DIFFERS, "in the stream looks like turnover"),
        (PAST._replace(volume=0.25), FaultName.LIVE_VOLUME_DIFFERS, "in history looks like turnover"),
        (PAST._replace(volume=4.0), FaultName.LIVE_VOLUME_DIFFERS, "has the volume 4 in the stream, 3 in history"),
    ],
)
def test_a_closed_candle_that_differs_is_explained(live: Candle, fault: FaultName | None, why: str) -> None:
    finding = compared("X@1m", live, PAST, 1e-6)
    assert (finding and finding.fault) == fault
    assert finding is None or why in finding.seen


@pytest.mark.parametrize(
    ("live", "fault"),
    [
        (PAST._replace(high=12.0, low=10.0, close=11.0, volume=1.0), None),
        (PAST._replace(open=10.01), None),
        (PAST._replace(open=11.0), FaultName.LIVE_PRICES_DIFFER),
        (PAST._replace(high=15.0), FaultName.LIVE_PRICES_DIFFER),
        (PAST._replace(volume=30.0), FaultName.LIVE_VOLUME_DIFFERS),
    ],
)
def test_an_open_candle_can_only_have_grown(live: Candle, fault: FaultName | None) -> None:
    finding = compared_open("X@1m", live, PAST, 0.002, 3.0)
    assert (finding and finding.fault) == fault


def test_what_the_relay_says_of_an_update_has_a_name() -> None:
    said = {
        "relay_stream yielded None, not PriceUpdate": FaultName.WRONG_TYPE,
        "an update of X@1m, which is not on the watchlist": FaultName.UNWANTED_STREAM,
        "X@1m: ts_event_ms 5 does not fit the candle; it is in UTC milliseconds": FaultName.STAMP_UNIT,
        "X@1m: time 1772620800000 is not in Unix seconds": FaultName.TIME_UNIT,
        "X@1m: 7 is not an open time of 1m: it is not a multiple of 60 s": FaultName.WRONG_OPEN_TIME,
        "X@1m: open or close lies outside low and high": FaultName.UNSOUND_CANDLE,
    }
    assert {sentence: fault_of_update(sentence) for sentence in said} == said


def test_an_error_lists_each_fault_and_what_was_not_checked() -> None:
    finding = Finding(FaultName.CLOSES_EARLY, "closed at 10:40:07", "open until 10:41:00", candle_text(PAST))
    error = DoesNotConform("venue", [finding, finding], ["values: why"])
    assert error.faults == (FaultName.CLOSES_EARLY,)
    assert str(error).startswith(
        "venue does not conform:\n\ncloses_early: a candle is closed before its interval ends\n"
        "  seen:     closed at 10:40:07\n  expected: open until 10:41:00\n"
        "  example:  2026-03-04T10:40:00Z O 10 H 14 L 9 C 12 V 3\n  look at:  is_closed: "
    )
    assert str(error).endswith("\n\nnot checked:\n- values: why")


def test_a_moment_that_is_no_date_is_written_as_it_is() -> None:
    assert (utc(0), utc(1e15)) == ("1970-01-01T00:00:00Z", "1e+15")
