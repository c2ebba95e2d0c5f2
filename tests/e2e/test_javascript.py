"""All JavaScript of the project: a compiler finds no wrong type in it, and it is formatted, as the style sheets are."""

import subprocess
from pathlib import Path

import pytest

from tests.support.tools import npm_tool

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file
    for part in ("relay", "tests")
    for ending in ("js", "mjs")
    for file in (ROOT / part).rglob(f"*.{ending}")
    if "node_modules" not in file.parts
)
FORMATTED = [
    *FILES,
    *(ROOT / "relay/web/static").glob("*.d.ts"),
    *(ROOT / "relay/web/static").glob("*.css"),
    *(ROOT / "tests/js").glob("*.json"),
    *(ROOT / "relay/web/examples").glob("*/*.json"),
    *(ROOT / "relay/web/examples").glob("*/*.html"),
    *(ROOT / "tests/support/npm_program").glob("*.ts"),
    ROOT / "relay/packaging/npm/package.json",
    ROOT / "tests/data/client_scenarios.json",
]


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_compiler_finds_no_wrong_type(request: pytest.FixtureRequest) -> None:
    tsc = npm_tool("tsc", request.config)
    project = ("--project", "tests/js/tsconfig.json")
    code, said = run(tsc, *project, "--listFilesOnly")
    assert code == 0, said
    assert {str(file) for file in FILES} <= set(said.splitlines())
    assert run(tsc, *project) == (0, "")


def test_it_is_formatted(request: pytest.FixtureRequest) -> None:
    code, said = run(npm_tool("prettier", request.config), "--check", *map(str, FORMATTED))
    assert code == 0, said


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_editors_check_it_too(file: Path) -> None:
    assert "// @ts-check\n" in file.read_text(encoding="utf-8")[:100]
