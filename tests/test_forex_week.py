"""Days of Twelve Data in seconds, each in a process of its own: a weekend here; weeks with `--forex-weeks`.

`python -m tests.forex_week --help` runs others.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from providers.sandbox import Market
from tests.forex_week import LENGTHS_S, STAYS, Message, Scenario, StreamJudge, Told, Truth, Values, moment

ROOT = Path(__file__).parent.parent
FRIDAY = moment("2026-10-16 20:00")
CLOSES = moment("2026-10-16 21:00")
OPENS = moment("2026-10-18 21:00")
END = moment("2026-10-18 22:00")

# -- the judge finds what it is there to find ------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(1)


@pytest.fixture
def truth(market: Market) -> Truth:
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


def kinds(truth: Truth, told: Sequence[Told], end: int = END) -> set[str]:
    scenario = Scenario(FRIDAY, (END - FRIDAY) / 3600, "stream", "free")
    judge = StreamJudge("client", "EUR/USD@1h", truth, scenario)
    judge.told += sorted(told, key=lambda one: one.at)
    judge.judge([(FRIDAY, end)])
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


def test_the_judge_finds_gaps(truth: Truth) -> None:
    gap = {"type": "gap", "from": FRIDAY, "to": CLOSES, "reason": "none"}
    first, *rest = sound(truth)
    assert kinds(truth, [Told(CLOSES + 10, gap), *rest]) == {"gap"}
    assert kinds(truth, [Told(CLOSES + 10, gap), Told(CLOSES + 99, first.message), *rest]) == set()
    closed = {**gap, "from": CLOSES, "to": OPENS}
    assert kinds(truth, [*sound(truth), Told(OPENS, closed)]) == {"gap in closed hours"}


def test_the_market_of_the_truth_has_clock_changes_and_a_daily_pause(market: Market) -> None:
    money, metal = Truth(market, "EUR/USD", "1m"), Truth(market, "XAU/USD", "1m")
    spring = [at for at, _ in money.changes(moment("2026-03-06 12:00"), moment("2026-03-14 00:00"))]
    assert spring == [moment("2026-03-06 22:00"), moment("2026-03-08 21:00"), moment("2026-03-13 21:00")]
    autumn = [at for at, _ in money.changes(moment("2026-10-30 12:00"), moment("2026-11-02 00:00"))]
    assert autumn == [moment("2026-10-30 21:00"), moment("2026-11-01 22:00")]
    pause = [at for at, _ in metal.changes(moment("2026-10-13 12:00"), moment("2026-10-14 12:00"))]
    assert pause == [moment("2026-10-13 21:00"), moment("2026-10-13 22:00")]
    assert {name.partition("@")[2] for name in STAYS} == LENGTHS_S.keys()


# -- the relay -------------------------------------------------------------------------------------

POLL_FREE = ("--mode", "poll", "--plan", "free")
POLL_LARGE = ("--mode", "poll", "--plan", "large")
STREAM_LARGE = ("--mode", "stream", "--plan", "large")
WEEKS = {
    "autumn clock change": ("--start", "2026-10-30 12:00", "--hours", "228"),
    "spring clock change": ("--start", "2026-03-06 12:00", "--hours", "228"),
    "holiday": ("--start", "2026-12-24 12:00", "--hours", "84", "--holiday", "2026-12-24 22:00", "2026-12-25 22:00"),
    "bars that settle late": ("--start", "2026-10-13 00:00", "--hours", "48", "--settles", "150"),
    "troubles": ("--start", "2026-10-12 00:00", "--hours", "100", "--troubles"),
}


def run_week(*options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.forex_week", *options], capture_output=True, text=True, cwd=ROOT, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("how", [POLL_FREE, STREAM_LARGE], ids=["poll", "stream"])
def test_a_weekend_passes_without_a_fault(how: tuple[str, ...]) -> None:
    run_week("--start", "2026-10-16 17:00", "--hours", "54", *how)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [POLL_FREE, POLL_LARGE, STREAM_LARGE], ids=["poll free", "poll large", "stream large"])
@pytest.mark.parametrize("week", WEEKS)
def test_a_week_passes_without_a_fault(request: pytest.FixtureRequest, week: str, how: tuple[str, ...]) -> None:
    if not request.config.getoption("--forex-weeks"):
        pytest.skip("takes minutes: --forex-weeks")
    run_week(*WEEKS[week], *how)
