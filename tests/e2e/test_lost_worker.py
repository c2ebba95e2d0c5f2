"""A worker that is killed under its tests: the run ends, and says so."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.relay_process import CLEAN

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal

def test_before():
    pass

def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)
"""
OTHERS = "def test_other():\n    pass\n"


def test_a_run_whose_worker_is_killed_ends_and_fails(tmp_path: Path) -> None:
    (tmp_path / "test_killed.py").write_text(KILLED, encoding="utf-8")
    for number in range(4):
        (tmp_path / f"test_other_{number}.py").write_text(OTHERS, encoding="utf-8")
    config = ("-c", str(ROOT / "setup.cfg"), "--rootdir", str(tmp_path), "-p", "tests.conftest")
    # One worker has more files than it is given at once: so xdist waits for ever if it starts another one.
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *config, "-p", "no:cacheprovider", "-n", "1", str(tmp_path)],
        cwd=tmp_path,
        env={**CLEAN, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == pytest.ExitCode.INTERRUPTED
    assert "crashed while running 'test_killed.py::test_killed'" in ended.stdout
    assert "gw0 died: the run ended, and not all tests were run" in ended.stdout
