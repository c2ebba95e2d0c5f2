"""The second try, run on tests that pass by luck."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.relay_process import CLEAN

ROOT = Path(__file__).parents[2]
# The process above stands for the machine: what it does not notice while it is stopped is a pause.
LUCKY = """
import os, pathlib, signal, time

def test_lucky():
    tried = pathlib.Path("tried")
    if not tried.exists():
        tried.touch()
        if {pauses}:
            os.kill(os.getppid(), signal.SIGSTOP)
            time.sleep(1)
            os.kill(os.getppid(), signal.SIGCONT)
        raise AssertionError
"""


def second_try(folder: Path, *options: str, pauses: bool = False) -> tuple[int, str]:
    (folder / "test_luck.py").write_text(LUCKY.format(pauses=pauses), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.second_try", *options, "-q", "test_luck.py"],
        cwd=folder,
        env={**CLEAN, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_who_passes_by_luck_fails_a_strict_run_only(tmp_path: Path) -> None:
    code, out = second_try(tmp_path)
    assert code == 0
    assert "passed only at the second try" in out
    (tmp_path / "tried").unlink()
    code, out = second_try(tmp_path, "--strict")
    # Unless the machine, busy as it may be, did just that.
    assert code == (0 if "stood still" in out else 1)
    assert (code == 0) or "not in unsteady.txt" in out


def test_a_pause_of_the_machine_is_seen_and_fails_no_run(tmp_path: Path) -> None:
    code, out = second_try(tmp_path, "--strict", pauses=True)
    assert code == 0
    assert re.search(r"passed only at the second try \(the machine stood still for [1-9]", out)


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    assert 0\n", encoding="utf-8")
    code, out = second_try(tmp_path, "test_wrong.py")
    assert code == 1
    assert "second try: test_wrong.py" not in out
