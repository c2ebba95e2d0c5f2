"""Runs the tests, and those that failed once more: `python -m tests.support.second_try [--strict] [ARGUMENT …]`.

A test that passes at the second try is printed. With `--strict` as the first argument the run fails unless
`unsteady.txt` beside this file names it: what depends on luck has to be mended, not repeated. That list may only become
shorter.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNSTEADY = Path(__file__).with_name("unsteady.txt")
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
MOST_TRIED_AGAIN = 40


def known_unsteady() -> list[str]:
    """Return the tests of the list, as pytest names them without parameters."""
    lines = UNSTEADY.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def judge(first: set[str], second: set[str], known: list[str]) -> tuple[list[str], list[str]]:
    """Return who passed only at the second try, and who of them is not known for it, of those who failed each time."""
    lucky = sorted(first - second)
    return lucky, [name for name in lucky if name.partition("[")[0] not in known]


def _failed() -> set[str]:
    return set(json.loads(FAILED.read_text(encoding="utf-8"))) if FAILED.is_file() else set()


def main(arguments: list[str]) -> int:
    """Run the tests with these arguments of pytest, after `--strict`; return the exit code."""
    is_strict = arguments[:1] == ["--strict"]
    arguments = arguments[is_strict:]
    FAILED.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", *arguments]
    code = subprocess.run(pytest, check=False).returncode
    first = _failed()
    if code != 1 or len(first) > MOST_TRIED_AGAIN:
        return code
    print(f"\n{len(first)} failed; once more, one after the other", flush=True)
    code = subprocess.run([*pytest, "-n", "0", "--last-failed"], check=False).returncode
    lucky, unknown = judge(first, _failed(), known_unsteady())
    for name in lucky:
        print(f"passed only at the second try{'' if name in unknown else ' (known)'}: {name}")
    if unknown:
        print(f"not in {UNSTEADY.relative_to(ROOT)}: mend them")
    return code or int(is_strict and bool(unknown))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
