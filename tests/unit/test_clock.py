"""The provider's time: learnt from its stamps, whatever the clock of this machine says."""

import ast
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from relay.core.clock import STEP_S, UNCONFIRMED_S, Clock, ProviderClock
from relay.core.rate_limits import Buckets, TokenBucket
from relay.testing.sped_up_time import SpedUpTime, installed
from tests.support.sources import nodes

NOON = 1_764_000_000.0


class Machine:
    """The two clocks of a machine; `wall` can jump, `monotonic` cannot."""

    def __init__(self, wall: float = NOON, monotonic: float = 500.0) -> None:
        self.wall = wall
        self.monotonic = monotonic
        self.clock = Clock(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def sleep(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_the_wall_clock_is_the_first_guess(machine: Machine) -> None:
    assert ProviderClock(machine.clock).now() == NOON
    assert not ProviderClock(machine.clock).is_synchronised


@pytest.mark.parametrize("wrong_by_s", [-86_400.0, -3600.0, -0.3, 0.3, 3600.0, 86_400.0])
def test_a_wall_clock_that_is_wrong_changes_nothing_after_one_stamp(machine: Machine, wrong_by_s: float) -> None:
    machine.wall += wrong_by_s
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    machine.sleep(10)
    assert clock.now() == NOON + 10


@pytest.mark.parametrize("jump_s", [-86_400.0, -5.0, 5.0, 86_400.0])
def test_a_wall_clock_that_jumps_changes_nothing(machine: Machine, jump_s: float) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    machine.wall += jump_s
    machine.sleep(1)
    assert clock.now() == NOON + 1


def test_the_stamp_that_travelled_fastest_counts(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for delay_s in (0.4, 0.05, 0.9, 0.2):
        machine.sleep(1)
        clock.observe(machine.wall - delay_s)
    assert clock.now() == pytest.approx(machine.wall - 0.05)


def test_the_time_is_never_ahead_however_stamps_are_delayed(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    dice = random.Random(7)
    for _ in range(1000):
        machine.sleep(dice.expovariate(5))
        clock.observe(machine.wall - dice.expovariate(2))
        assert clock.now() <= machine.wall + 1e-6


def test_one_stamp_from_the_future_changes_nothing(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    clock.observe(NOON + 86_400)
    clock.observe(NOON * 1000)
    assert clock.now() == NOON


def test_single_stamps_from_the_future_between_true_ones_change_nothing(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for _ in range(20):
        machine.sleep(1)
        clock.observe(machine.wall)
        clock.observe(machine.wall + 3600)
    assert clock.now() == machine.wall


def test_a_jump_ahead_on_which_stamps_agree_is_followed(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    machine.wall += 3600  # the machine was suspended: its monotonic clock stood still
    for _ in range(3):
        clock.observe(machine.wall)
    assert clock.now() == NOON + 3600


def test_a_small_correction_ahead_is_followed_at_once(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON - 3)
    clock.observe(NOON)
    assert clock.now() == NOON


def test_a_provider_that_sets_its_clock_back_is_followed_after_a_while(machine: Machine) -> None:
    clock = ProviderClock(machine.clock, remember=8)
    clock.observe(NOON)
    for _ in range(8):
        clock.observe(NOON - 30)
    assert clock.now() == NOON - 30


def test_stamps_of_the_past_alone_set_the_clock_back_only_when_the_true_ones_are_forgotten(machine: Machine) -> None:
    clock = ProviderClock(machine.clock, remember=8)
    for _ in range(5):
        clock.observe(NOON)
        clock.observe(1.0)
    assert clock.now() == NOON


# ---- who is believed --------------------------------------------------------------------------------------------


def settled(machine: Machine) -> ProviderClock:
    """Return a clock on which this machine, the provider's answers and one symbol agree."""
    clock = ProviderClock(machine.clock)
    clock.observe(machine.wall)
    clock.observe(machine.wall, "SOUND")
    return clock


@pytest.mark.parametrize("off_s", [7200.0, -7200.0, 70.0, 6.0])
@pytest.mark.parametrize("times", [1, 5, 1000])
def test_the_stamps_of_one_symbol_do_not_move_the_time(machine: Machine, off_s: float, times: int) -> None:
    clock = settled(machine)
    for _ in range(times):
        machine.sleep(0.1)
        assert clock.observe(machine.wall + off_s, "WRONG") == pytest.approx(-off_s, abs=1e-3)
    assert clock.now() == pytest.approx(machine.wall)
    assert clock.certain() == pytest.approx(machine.wall)


def test_one_symbol_alone_is_not_believed_over_the_wall_clock(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for _ in range(5):
        assert clock.observe(machine.wall + 7200, "WRONG") < 0
    assert clock.now() == machine.wall
    assert clock.latest() is None


def test_two_symbols_are_not_believed_over_the_wall_clock_and_the_date_of_answers(machine: Machine) -> None:
    clock = settled(machine)
    for _ in range(100):
        machine.sleep(0.1)
        clock.observe(machine.wall + 7200, "ONE")
        clock.observe(machine.wall + 7200, "OTHER")
    assert clock.now() == pytest.approx(machine.wall)


@pytest.mark.parametrize("wrong_by_s", [-7200.0, 7200.0])
@pytest.mark.parametrize("sources", [("ONE", "OTHER"), (None,), ("ONE", None)])
def test_sources_that_agree_are_believed_over_a_wrong_wall_clock(
    machine: Machine, wrong_by_s: float, sources: tuple[str | None, ...]
) -> None:
    machine.wall += wrong_by_s
    clock = ProviderClock(machine.clock)
    for source in sources:
        clock.observe(NOON, source)
    assert clock.now() == NOON


@pytest.mark.parametrize("wrong_by_s", [0.0, -86_400.0])
def test_one_symbol_is_believed_after_this_machine_slept(machine: Machine, wrong_by_s: float) -> None:
    machine.wall += wrong_by_s
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    clock.observe(NOON, "ONE")
    machine.wall += 3600  # its monotonic clock stood still
    assert clock.observe(NOON + 3600, "ONE") == 0
    assert clock.now() == NOON + 3600


def test_a_machine_both_clocks_of_which_stood_still_learns_the_time_from_the_next_answer(machine: Machine) -> None:
    clock = settled(machine)
    later = machine.wall + 3600
    for _ in range(10):
        clock.observe(later, "SOUND")
    assert clock.now() == machine.wall
    clock.observe(later)
    assert clock.now() == later


def test_a_symbol_that_draws_the_time_ahead_step_by_step_gets_no_further_than_with_one(machine: Machine) -> None:
    clock = settled(machine)
    for step in range(1, 500):
        clock.observe(machine.wall + 4 * step, "WRONG")
        assert clock.now() <= machine.wall + STEP_S + 1
    clock.observe(machine.wall)
    assert clock.now() <= machine.wall + STEP_S + 1


def test_a_time_that_is_drawn_ahead_by_symbol_and_machine_is_followed(machine: Machine) -> None:
    clock = settled(machine)
    for _ in range(50):
        machine.wall += 4
        assert clock.observe(machine.wall, "SOUND") == 0
        assert clock.now() == machine.wall


def test_before_anybody_says_what_time_it_is_more_counts_as_the_fault_of_this_machine(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    assert clock.ahead_s == UNCONFIRMED_S
    clock.observe(machine.wall)
    assert clock.ahead_s == STEP_S


def test_nothing_is_certain_beyond_the_wall_clock_while_only_answers_say_so(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON + 7200)
    assert (clock.now(), clock.certain(), clock.latest()) == (NOON + 7200, NOON, NOON + 7200)
    clock.observe(NOON + 7200, "ONE")
    assert clock.certain() == NOON + 7200


def test_a_date_that_is_behind_hides_nothing_until_a_second_source_says_the_same(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    assert (clock.reach(), clock.latest()) == (NOON, None)
    clock.observe(NOON - 7200)
    assert (clock.now(), clock.certain()) == (NOON - 7200, NOON - 7200)
    assert (clock.reach(), clock.latest()) == (NOON, NOON)
    clock.observe(NOON - 7200, "ONE")
    assert (clock.reach(), clock.latest()) == (NOON - 7200, NOON - 7200)


def test_nothing_is_certain_beyond_what_a_symbol_says_while_there_is_only_the_wall_clock(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON - 7200, "ONE")
    assert (clock.now(), clock.certain()) == (NOON, NOON - 7200)


def test_a_feed_that_is_late_from_its_first_message_on_moves_no_clock(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for number in range(20):
        clock.observe(NOON - 13 + number / 10, "ONE" if number % 2 else "OTHER")
    assert clock.now() == NOON
    assert clock.observe(NOON - 0.5) == pytest.approx(0.0)
    clock.observe(NOON - 13, "ONE")
    assert clock.now() == NOON - 0.5


def test_dates_in_a_row_between_two_sound_stamps_move_no_clock(machine: Machine) -> None:
    clock = settled(machine)
    for _ in range(5):
        clock.observe(NOON + 7200)
    assert clock.now() == NOON


@pytest.mark.parametrize(("ahead_s", "over_s"), [(4.0, 0.0), (-4.0, -4.0)])
def test_a_stamp_that_is_a_little_ahead_makes_no_candle_over(machine: Machine, ahead_s: float, over_s: float) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON + ahead_s)
    assert clock.now() == NOON + ahead_s
    assert clock.over() == NOON + over_s


def test_a_wall_clock_that_is_far_off_makes_no_candle_open(machine: Machine) -> None:
    machine.wall -= 7200.0
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    assert clock.over() == NOON - 7200
    clock.see(NOON - 60)
    assert clock.over() == NOON


def test_a_date_that_is_far_ahead_of_the_wall_clock_makes_no_candle_over(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for _ in range(5):
        clock.observe(NOON + 7200)
    clock.see(NOON - 60)
    assert (clock.now(), clock.over()) == (NOON + 7200, NOON)


def test_the_first_symbol_and_this_machine_are_believed_over_a_wrong_date(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    for _ in range(5):
        clock.observe(NOON + 7200)
    clock.observe(NOON, "SOUND")
    assert clock.now() == NOON
    for _ in range(5):
        clock.observe(NOON + 7200)
    assert clock.now() == NOON


def test_a_symbol_and_a_machine_that_are_ahead_together_close_nothing_that_an_answer_calls_the_future(
    machine: Machine,
) -> None:
    machine.wall += 7200
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    # Two against one; nobody can say which of them is right.
    clock.observe(NOON + 7200, "WRONG")
    assert clock.certain() == NOON + 7200
    # But an answer says what time it is itself.
    clock.observe(NOON)
    assert (clock.now(), clock.over(), clock.certain()) == (NOON + 7200, NOON, NOON)
    machine.sleep(50)
    assert clock.certain() == NOON + 50
    # Many caches keep an answer for a while; that is no second opinion.
    clock.observe(NOON + 7220)
    assert (clock.over(), clock.certain()) == (NOON + 7220, NOON + 7250)


def test_a_symbol_and_a_machine_that_are_ahead_together_are_overruled_by_two_symbols_and_the_answers(
    machine: Machine,
) -> None:
    machine.wall += 7200
    clock = ProviderClock(machine.clock)
    clock.observe(NOON)
    clock.observe(NOON + 7200, "WRONG")
    for _ in range(3):
        machine.sleep(1)
        assert (clock.now(), clock.set_backs) == (machine.wall, 0)
        for source in ("WRONG", "ONE", "OTHER", None):
            clock.observe(machine.wall - 7200 * (source != "WRONG"), source)
    for _ in range(100):
        machine.sleep(1)
        clock.observe(machine.wall, "WRONG")
        clock.observe(machine.wall - 7200, "ONE")
        assert (clock.now(), clock.set_backs) == (machine.wall - 7200, 1)


@pytest.mark.parametrize("behind_s", [60.0, 600.0, 86_400.0])
def test_the_date_of_a_copy_leaves_no_candle_open_that_two_symbols_and_this_machine_call_over(
    machine: Machine, behind_s: float
) -> None:
    clock = ProviderClock(machine.clock)
    for _ in range(100):
        for source in ("ONE", "OTHER", None):
            clock.observe(machine.wall - behind_s * (source is None), source)
        assert clock.now() == clock.over() == clock.certain() == machine.wall
        machine.sleep(1)


def test_the_date_of_a_copy_is_not_believed_against_a_candle_that_had_opened(machine: Machine) -> None:
    clock = ProviderClock(machine.clock)
    clock.observe(NOON, "ONE")
    clock.observe(NOON - 600)
    assert (clock.over(), clock.certain()) == (NOON - 600, NOON - 600)
    clock.see(NOON - 30)
    assert (clock.over(), clock.certain()) == (NOON - 30, NOON)


# -- clocks that are not given -----------------------------------------------------------------------------------------


def bound_while_loading(paths: Iterable[Path]) -> list[str]:
    """Return where a clock of `time` is the default of an argument or a field: it stays the machine's for ever."""
    found = []
    for path in paths:
        for node in nodes(path):
            defaults: list[ast.expr | None] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                defaults = [*node.args.defaults, *node.args.kw_defaults]
            elif isinstance(node, ast.ClassDef):
                defaults = [one.value for one in node.body if isinstance(one, ast.Assign | ast.AnnAssign)]
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                found.append(f"{path.name}:{node.lineno}")
            for default in defaults:
                if default is not None and ast.unparse(default) in ("time.time", "time.monotonic"):
                    found.append(f"{path.name}:{default.lineno}")
    return found


def test_no_clock_is_bound_while_modules_are_loaded() -> None:
    root = Path(__file__).parents[2]
    assert bound_while_loading([*(root / "relay").rglob("*.py"), *(root / "providers").rglob("*.py")]) == []


def test_a_clock_that_is_bound_while_a_module_is_loaded_is_noticed(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import time\nfrom time import time as now\ndef one(a, b=time.time, *, c=time.monotonic): ...\n"
        "class Two:\n    read: object = time.time\n    at: float = time.time()\n",
        encoding="utf-8",
    )
    assert sorted(bound_while_loading([module])) == ["module.py:2", "module.py:3", "module.py:3", "module.py:5"]


def test_limits_go_by_the_time_that_is_installed() -> None:
    now = SpedUpTime(NOON)
    with installed(now):
        bucket, buckets = TokenBucket(1, 2), Buckets[str](1, 2)
        assert [bucket.try_acquire(2), buckets.of("one").try_acquire(2)] == [True, True]
        assert [bucket.try_acquire(2), buckets.of("one").try_acquire(2)] == [False, False]
        now.jump(2)
        assert [bucket.try_acquire(2), buckets.of("one").try_acquire(2)] == [True, True]
