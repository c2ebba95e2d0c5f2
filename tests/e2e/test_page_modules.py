"""Runs the tests of the chart page's pure modules, which are written in JavaScript (`page_modules.mjs`)."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from relay.instruments.spellings import COMMON_NAMES, QUOTES
from tests.support.javascript_client import node_of
from tests.support.served_files import STATIC


def test_pure_modules_of_the_chart_page(request: pytest.FixtureRequest) -> None:
    file = Path(__file__).parents[1] / "support" / "page_modules.mjs"
    spellings = {"COMMON_NAMES": COMMON_NAMES, "QUOTES": QUOTES}
    done = subprocess.run(
        [node_of(request.config), "--test", "--test-reporter=tap", str(file)],
        env={**os.environ, "STATIC": str(STATIC), "SPELLINGS": json.dumps(spellings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    written = file.read_text(encoding="utf-8").count("\ntest(")
    assert f"# pass {written}\n" in done.stdout
