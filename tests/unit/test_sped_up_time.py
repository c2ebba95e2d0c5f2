"""Time that jumps passes by itself only for who works, and not while the machine has no time for it."""

import pytest

from relay.testing.sped_up_time import SpedUpTime


class Machine:
    """What the clock of a machine says, and how much of its processor the process had."""

    def __init__(self) -> None:
        self.real_s = 5000.0
        self.used_s = 70.0

    def go_on(self, real_s: float, used_s: float) -> None:
        self.real_s += real_s
        self.used_s += used_s


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def now(machine: Machine) -> SpedUpTime:
    return SpedUpTime(0.0, busy_s=1.0, held_up_s=60.0, real=lambda: machine.real_s, used=lambda: machine.used_s)


def test_no_time_passes_on_a_machine_that_lets_the_process_wait(machine: Machine, now: SpedUpTime) -> None:
    machine.go_on(real_s=50.0, used_s=0.9)
    assert now.wall() == 0.0
    now.jump(3600.0)
    machine.go_on(real_s=50.0, used_s=0.9)
    assert now.wall() == 3600.0


def test_who_never_waits_does_not_stop_it(machine: Machine, now: SpedUpTime) -> None:
    machine.go_on(real_s=1.5, used_s=1.5)
    assert now.wall() == pytest.approx(0.5)
    now.jump(10.0)
    machine.go_on(real_s=0.5, used_s=0.5)
    assert now.wall() == pytest.approx(10.5)


def test_who_blocks_the_loop_does_not_stop_it_for_ever(machine: Machine, now: SpedUpTime) -> None:
    machine.go_on(real_s=61.0, used_s=0.1)
    assert now.wall() == pytest.approx(1.0)
