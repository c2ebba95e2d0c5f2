"""Days of Twelve Data in seconds, each in a process of its own: a week, late bars, a weekend; `--forex-weeks`: more.

`python -m tests.support.forex_week --help` runs others.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.forex_judge import LENGTHS_S, Message, Scenario, StreamJudge, Told, Trouble, Truth, Values, moment
from tests.support.forex_troubles import ORDEALS
from tests.support.forex_week import COMES_LATE, ORDEAL_NAMES, STAYS, resumption
from tests.support.sandbox import StagedMarket

ROOT = Path(__file__).parents[2]
FRIDAY = moment("2026-10-16 20:00")
CLOSES = moment("2026-10-16 21:00")
OPENS = moment("2026-10-18 21:00")
END = moment("2026-10-18 22:00")

# -- the judge finds what it is there to find ------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> StagedMarket:
    return StagedMarket(1)


@pytest.fixture
def truth(market: StagedMarket) -> Truth:
    return Truth(market, "EUR/USD", "1h")


def candle(at: int, values: Values) -> Message:
    return {"time": at, **dict(zip(("open", "high", "low", "close"), values, strict=True)), "volume": 0.0}


def update(truth: Truth, at: int, *, closed: bool = True, values: Values | None = None, **marks: bool) -> Message:
    shape = values or truth.values(at)
    return {"type": "price_update", "interval": "1h", "candle": candle(at, shape), "is_closed": closed, **marks}


def status(name: str) -> Message:
    return {"type": "status", "status": name}


def sound(truth: Truth) -> list[Told]:
    """What a good relay tells from Friday, 20:00 UTC, to Sunday, 22:00."""
    return [
        Told(CLOSES + 10, update(truth, FRIDAY)),
        Told(CLOSES + 10, status("market_closed")),
        Told(OPENS + 2, status("connected")),
        Told(OPENS + 3, update(truth, OPENS, closed=False)),
    ]


def kinds(truth: Truth, told: Sequence[Told], *troubles: Trouble, plan: str = "free") -> set[str]:
    scenario = Scenario(FRIDAY, (END - FRIDAY) / 3600, "stream", plan)
    judge = StreamJudge("client", "EUR/USD@1h", truth, scenario, troubles)
    judge.told += sorted(told, key=lambda one: one.at)
    judge.judge([(FRIDAY, END)])
    return {kind for kind, _ in judge.wrong}


def test_a_sound_weekend_passes(truth: Truth) -> None:
    assert kinds(truth, sound(truth)) == set()


def test_the_judge_finds_a_live_saturday(truth: Truth) -> None:
    assert kinds(truth, [*sound(truth), Told(CLOSES + 60, status("connected"))]) == {"connected while closed"}
    assert kinds(truth, [*sound(truth), Told(CLOSES + 3600, status("stale"))]) == {"stale while closed"}


def test_the_judge_finds_an_opening_that_is_missed(truth: Truth) -> None:
    first, rest, _, price = sound(truth)
    assert kinds(truth, [first, rest, price]) == {"market_closed while open"}
    late = price._replace(at=OPENS + 71)
    assert kinds(truth, [*sound(truth)[:3], late]) == {"first price"}


def test_the_judge_finds_a_close_that_comes_with_the_next_week(truth: Truth) -> None:
    first, *rest = sound(truth)
    assert kinds(truth, [first._replace(at=OPENS), *rest]) == {"late"}
    assert kinds(truth, rest) == {"missing"}


def test_the_judge_finds_wrong_closes(truth: Truth) -> None:
    told = sound(truth)
    assert kinds(truth, [*told, told[0]]) == {"twice"}
    wrong = update(truth, FRIDAY, values=(1.0, 1.0, 1.0, 1.0))
    assert kinds(truth, [Told(CLOSES + 10, wrong), *told[1:]]) == {"values"}
    mended = Told(CLOSES + 90, update(truth, FRIDAY, revised=True))
    assert kinds(truth, [Told(CLOSES + 10, wrong), mended, *told[1:]]) == set()
    padded = update(truth, CLOSES + 3600, values=truth.values(CLOSES + 3600))
    assert kinds(truth, [*told, Told(CLOSES + 7200, padded)]) == {"never was"}


def test_the_judge_takes_what_a_resume_brings_of_before_as_revised(truth: Truth) -> None:
    told = sound(truth)
    wrong = update(truth, FRIDAY, values=(1.0, 1.0, 1.0, 1.0))
    mended = [candle(FRIDAY, truth.values(FRIDAY))]
    resumed = {"type": "snapshot", "candles": [], "last_is_closed": True, "revised": mended}
    assert kinds(truth, [Told(CLOSES + 10, wrong), *told[1:], Told(CLOSES + 999, resumed)]) == set()
    again = {**resumed, "candles": mended}
    assert kinds(truth, [*told, Told(CLOSES + 999, again)]) == {"twice"}


def test_the_judge_finds_gaps(truth: Truth) -> None:
    gap = {"type": "gap", "from": FRIDAY, "to": CLOSES, "reason": "none"}
    first, *rest = sound(truth)
    assert kinds(truth, [Told(CLOSES + 10, gap), *rest]) == {"gap"}
    assert kinds(truth, [Told(CLOSES + 10, gap), Told(CLOSES + 99, first.message), *rest]) == set()
    closed = {**gap, "from": CLOSES, "to": OPENS}
    assert kinds(truth, [*sound(truth), Told(OPENS, closed)]) == {"gap in closed hours"}


def test_the_judge_finds_a_state_that_does_not_fit_the_trouble(truth: Truth) -> None:
    throttled = [Told(OPENS + 300, status("throttled")), *sound(truth)]
    assert kinds(truth, throttled) == set()
    assert kinds(truth, throttled, plan="large") == {"throttled while open"}
    small = Trouble("a smaller plan", OPENS, END, frozenset({"throttled"}))
    assert kinds(truth, throttled, small, plan="large") == set()
    assert kinds(truth, [*throttled, Told(OPENS + 301, status("error"))], small) == {"error while open"}
    refused = Trouble("the key is refused", OPENS, END, required="error")
    assert kinds(truth, sound(truth), refused) == {"connected in trouble"}
    assert kinds(truth, [*sound(truth), Told(OPENS + 600, status("error"))], refused) == set()


def test_the_judge_excuses_a_late_opening_only_where_others_had_spent_the_credits(truth: Truth) -> None:
    told = [*sound(truth)[:2], Told(OPENS + 5, status("throttled"))]

    def found(*ordeals: str) -> set[str]:
        scenario = Scenario(FRIDAY, (END - FRIDAY) / 3600, "stream", "free", ordeals=frozenset(ordeals))
        judge = StreamJudge("client", "EUR/USD@1h", truth, scenario)
        judge.told += told
        judge.judge([(FRIDAY, END)])
        return {kind for kind, _ in judge.wrong}

    assert found() == {"first price"}
    assert found("another program") == set()


def test_a_client_goes_on_behind_what_it_has_and_asks_for_what_it_lacks(truth: Truth) -> None:
    assert resumption([]) == {}
    gap = {"type": "gap", "interval": "1h", "from": FRIDAY - 7200, "to": FRIDAY, "reason": "none"}
    told = [Told(CLOSES, gap), Told(CLOSES, {**update(truth, FRIDAY), "revision": 7})]
    assert resumption(told) == {"since": FRIDAY, "revision": 7, "gaps": [[FRIDAY - 7200, FRIDAY]]}
    told += [Told(CLOSES + 9, update(truth, FRIDAY - 3600 * number, revised=True)) for number in (1, 2)]
    assert resumption(told) == {"since": FRIDAY, "revision": 7}


def test_the_judge_finds_a_holiday_that_is_called_live_or_a_gap() -> None:
    market = StagedMarket(1)
    holiday = moment("2026-10-13 00:00"), moment("2026-10-13 20:00")
    market.hide("EUR/USD", holiday[0] * 1000, holiday[1] * 1000)
    truth = Truth(market, "EUR/USD", "1h")
    scenario = Scenario(holiday[0] - 3600, 23, "stream", "large", (holiday,))
    close = Told(holiday[0] + 5, update(truth, holiday[0] - 3600))

    def found(*told: Told) -> set[str]:
        judge = StreamJudge("client", "EUR/USD@1h", truth, scenario)
        judge.told += [close, *told]
        judge.judge([(holiday[0] - 3600, holiday[1])])
        return {kind for kind, _ in judge.wrong}

    stale = Told(holiday[0] + 7200, status("stale"))
    assert found(stale) == set()
    assert found() == {"connected without prices"}
    assert found(Told(holiday[0] + 7200, status("market_closed"))) == {"market_closed while open"}
    gap = {
        "type": "gap",
        "from": holiday[0],
        "to": holiday[0] + 7200,
        "reason": "the provider does not have these candles",
    }
    assert found(stale, Told(holiday[0] + 9000, gap)) == {"gap in closed hours"}
    assert found(stale, Told(holiday[0] + 9000, {**gap, "reason": "the provider was not asked"})) == set()


def test_candles_of_four_hours_begin_with_the_day_of_the_market(market: StagedMarket) -> None:
    truth = Truth(market, "EUR/USD", "4h", is_new_york=True)
    found = truth.between(moment("2026-10-30 17:00"), moment("2026-11-02 06:00"))
    assert found == [moment(text) for text in ("2026-10-30 17:00", "2026-11-01 22:00", "2026-11-02 02:00")]


def test_the_market_of_the_truth_has_clock_changes_and_a_daily_pause(market: StagedMarket) -> None:
    money, metal = Truth(market, "EUR/USD", "1m"), Truth(market, "XAU/USD", "1m")
    spring = [at for at, _ in money.changes(moment("2026-03-06 12:00"), moment("2026-03-14 00:00"))]
    assert spring == [moment("2026-03-06 22:00"), moment("2026-03-08 21:00"), moment("2026-03-13 21:00")]
    autumn = [at for at, _ in money.changes(moment("2026-10-30 12:00"), moment("2026-11-02 00:00"))]
    assert autumn == [moment("2026-10-30 21:00"), moment("2026-11-01 22:00")]
    pause = [at for at, _ in metal.changes(moment("2026-10-13 12:00"), moment("2026-10-14 12:00"))]
    assert pause == [moment("2026-10-13 21:00"), moment("2026-10-13 22:00")]
    assert {name.partition("@")[2] for name in (*STAYS, *COMES_LATE)} == LENGTHS_S.keys()
    assert set(ORDEAL_NAMES) == ORDEALS.keys()


# -- the relay -------------------------------------------------------------------------------------

POLL_FREE = ("--mode", "poll", "--plan", "free")
POLL_LARGE = ("--mode", "poll", "--plan", "large")
STREAM_LARGE = ("--mode", "stream", "--plan", "large")
QUICK = ("--step", "5")
# From a Friday over the change of clocks in New York to the next Friday's close; Thursday is a holiday.
WEEK = (
    "--start", "2026-10-30 18:00", "--hours", "173", "--holiday", "2026-11-04 22:00", "2026-11-05 23:00",
)  # fmt: skip
WEEKS = {
    "clock changes of autumn": ("--start", "2026-10-23 12:00", "--hours", "250"),
    "clock change of the United States": ("--start", "2026-03-06 12:00", "--hours", "72"),
    "clock change of Europe": ("--start", "2026-03-27 12:00", "--hours", "72"),
    "Christmas and New Year": (
        "--start", "2025-12-24 12:00", "--hours", "227",
        "--bank-holiday", "2025-12-24 22:00", "2025-12-25 22:00",
        "--bank-holiday", "2025-12-31 22:00", "2026-01-01 22:00",
    ),
    "four hours of New York": ("--start", "2026-10-30 12:00", "--hours", "84", "--new-york"),
    "bars that settle late": ("--start", "2026-10-13 00:00", "--hours", "60", "--settles", "150"),
    "bars that settle after an hour": ("--start", "2026-10-13 00:00", "--hours", "60", "--settles", "3600"),
    "troubles": ("--start", "2026-10-12 00:00", "--hours", "100", "--ordeal", "troubles"),
    "another key": ("--start", "2026-10-12 00:00", "--hours", "54", "--ordeal", "another key"),
    # It leaves nothing of two days; in the morning after, what was missed can be had.
    "another program": ("--start", "2026-10-12 00:00", "--hours", "58", "--ordeal", "another program"),
    "a smaller plan": ("--start", "2026-10-12 00:00", "--hours", "102", "--ordeal", "a smaller plan"),
    "no ticks at first": ("--start", "2026-10-12 00:00", "--hours", "48", "--ordeal", "no ticks at first"),
}  # fmt: skip
HOWS = {"poll free": POLL_FREE, "poll large": POLL_LARGE, "stream large": STREAM_LARGE}
POINTLESS = {("a smaller plan", "poll free"), ("no ticks at first", "poll free"), ("no ticks at first", "poll large")}


def run_week(*options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forex_week", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(1800)
def test_a_week_passes_without_a_fault() -> None:
    run_week(*WEEK, *POLL_FREE, *QUICK)


@pytest.mark.timeout(1800)
def test_bars_that_settle_late_come_right_within_the_credits_of_the_free_plan() -> None:
    run_week(*WEEKS["bars that settle late"], *POLL_FREE, *QUICK)


@pytest.mark.timeout(1800)
def test_a_weekend_of_ticks_passes_without_a_fault() -> None:
    run_week("--start", "2026-10-16 18:00", "--hours", "52.5", *STREAM_LARGE, "--step", "1")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("week", "how"), [(week, how) for week in WEEKS for how in HOWS if (week, how) not in POINTLESS]
)
def test_other_weeks_pass_without_a_fault(request: pytest.FixtureRequest, week: str, how: str) -> None:
    if not request.config.getoption("--forex-weeks"):
        pytest.skip("takes minutes: --forex-weeks")
    run_week(*WEEKS[week], *HOWS[how])
