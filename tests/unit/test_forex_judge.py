"""The judge of days of Twelve Data finds what it is there to find, and its clients go on where they were."""

from collections.abc import Sequence

import pytest

from tests.support.forex_judge import LENGTHS_S, Message, Scenario, StreamJudge, Told, Trouble, Truth, Values, moment
from tests.support.forex_troubles import ORDEALS
from tests.support.forex_week import COMES_LATE, ORDEAL_NAMES, STAYS, Progress
from tests.support.sandbox import StagedMarket

FRIDAY = moment("2026-10-16 20:00")
CLOSES = moment("2026-10-16 21:00")
OPENS = moment("2026-10-18 21:00")
END = moment("2026-10-18 22:00")


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
    progress = Progress()
    assert (progress.options(), progress.gaps()) == ({}, [])
    progress.take({"type": "gap", "interval": "1h", "from": FRIDAY - 7200, "to": FRIDAY, "reason": "none"})
    # Without a candle there is nothing to go on behind.
    assert (progress.options(), progress.gaps()) == ({}, [])
    progress.take({**update(truth, FRIDAY), "revision": 7})
    assert progress.options() == {"since": FRIDAY, "revision": 7, "gaps": [[FRIDAY - 7200, FRIDAY]]}
    progress.take(update(truth, FRIDAY - 3600, revised=True))
    assert progress.gaps() == [[FRIDAY - 7200, FRIDAY]]
    progress.take({**update(truth, FRIDAY - 7200, revised=True), "revision": 8})
    assert progress.options() == {"since": FRIDAY, "revision": 8}
    assert progress.gaps() == []


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
