"""What stands around the code: documents whose links lead somewhere, decisions, forms, and what CI runs."""

import ast
import configparser
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.support.sources import nodes
from tests.support.workers import are_unit_tests

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
DECISIONS = sorted((GITHUB / "decisions").glob("*.md"))
FOLDERS = (".github", "relay", "providers", "tests")
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.md")) if "node_modules" not in path.parts),
]

INSTALL_BY_NAME = re.compile(r"pip install [^\n]*\bmarket-relay\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    """Return a document without its blocks of code and its inline code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return the names that GitHub gives the headings of a document."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings)


def broken(path: Path) -> list[str]:
    """Return the links of a document to files and headings that are not there."""
    found = []
    for link in LINK.findall(prose(path)):
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `name`, and more\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#a-name-and-more) [b](other.md#no-heading) [c](gone.md) [`d`](#e) `[f](g)`\n# E\n")
    assert broken(page) == ["other.md#no-heading", "gone.md"]


def named_and_gone(path: Path) -> list[str]:
    """Return the files and folders of the repository that the inline code of a document names and that are gone."""
    names = re.findall(r"`((?:relay|tests|providers)/[\w./@-]+)`", path.read_text(encoding="utf-8"))
    return [name for name in names if not (ROOT / name).exists()]


def crowded(path: Path) -> list[str]:
    """Return the headings of a document without an empty line before them, which a careless merge leaves."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^[^\n]+\n(#+ .+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_where_documents_say_and_headings_stand_apart(path: Path) -> None:
    assert (named_and_gone(path), crowded(path)) == ([], [])


def test_a_file_that_is_gone_and_a_heading_in_a_paragraph_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n`relay/app.py` and `relay/gone/`\n## B\n\n```\nx\n# no heading\n```\n")
    assert (named_and_gone(page), crowded(page)) == (["relay/gone/"], ["## B"])


def test_decisions_are_numbered_and_listed() -> None:
    assert [path.name[:5] for path in DECISIONS] == [f"{number:04d}-" for number in range(1, len(DECISIONS) + 1)]
    listed = re.findall(r"\(decisions/([^)]+)\)", (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert listed == [path.name for path in DECISIONS]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_decision_is_short_dated_and_names_its_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(r"# .+\n\n20\d\d-\d\d-\d\d\. Code: \[`", text)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["Why", "Decided", "What it costs"]
    assert len(text.split()) < 300


def unused(paths: Iterable[Path], users: Iterable[Path] = ()) -> list[str]:
    """Return the functions, classes, attributes and constants that modules make, and neither they nor `users` use."""
    own = [node for path in paths for node in nodes(path)]
    made: set[str] = set()
    for node in own:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            made.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id.isupper():
            made.add(node.id)
    every = [*own, *(node for path in users for node in nodes(path))]
    used = {node.attr for node in every if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    used |= {node.id for node in every if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return sorted(name for name in made - used if not name.startswith("__"))


def test_the_sandbox_ships_nothing_that_only_tests_use() -> None:
    users = [ROOT / "relay" / "cli.py", ROOT / "relay" / "commands" / "serve.py"]
    assert unused((ROOT / "providers" / "sandbox").glob("*.py"), users) == []


USED_BY_OTHERS = {
    # Authors of providers and of clients.
    *("outside", "receive_json", "to_pandas"),
    # What finds providers by their names, and click.
    *("BinanceProvider", "BinanceUsdmProvider", "CcxtProvider", "RelayProvider", "TwelveDataProvider"),
    *("format_commands", "list_commands", "new_plugin"),
    # Libraries read or call these of what they are given.
    *("_factory", "_pause_transport_reading", "_resume_transport_reading", "feed_eof", "proxy_headers"),
    *("check_hostname", "minimum_version", "verify_mode", "converter", "extensions"),
    *("gid", "gname", "mtime", "pax_headers", "uid", "uname"),
    *("own_session", "throttle", "timeout_on_exit"),
}


def test_nothing_is_shipped_that_only_tests_use() -> None:
    shipped = [path for part in ("relay", "providers") for path in sorted((ROOT / part).rglob("*.py"))]
    templates = [path for path in shipped if path.parent.name == "new-provider"]
    assert set(unused((path for path in shipped if path not in templates), templates)) == USED_BY_OTHERS


def test_what_is_not_used_is_noticed(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("B = C = 1\nclass A:\n    def f(self): self.calls = self.g(C)\n    def g(self): return A\n")
    assert unused([module]) == ["B", "calls", "f"]


def test_ci_runs_every_python_that_the_package_names() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r":: (3\.\d+)$", settings["metadata"]["classifiers"], flags=re.MULTILINE)
    matrix = re.search(r"python: \[(.*)\]", (GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert matrix is not None
    assert re.findall(r'"([\d.]+)"', matrix[1]) == named


def test_scripts_that_ci_runs_are_there_and_may_be_run() -> None:
    text = (GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8")
    scripts = re.findall(r"run: (\.ci/\S+)", text)
    assert scripts == [".ci/unit", ".ci/run"]
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_ci_runs_what_plain_pytest_leaves_out() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    left_out = re.findall(r"not (\w+)", settings["tool:pytest"]["addopts"])
    script = re.sub(r"^#.*$", "", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(left_out) == {"peers", "binary", "image", "long"}
    assert [marker for marker in left_out if f"-m {marker} " not in script] == []
    assert "-m long tests/e2e " in script
    plays = [path for path in (ROOT / "tests").rglob("test_*.py") if "@pytest.mark.long\n" in path.read_text("utf-8")]
    assert {path.parent for path in plays} == {ROOT / "tests" / "e2e"}


def test_the_table_of_commands_has_each_part_once() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## Run it") : text.index("### Unsteady tests")]
    commands = re.findall(r"^\| [^|]+ \| `([^`]+)`", table, flags=re.MULTILINE)
    parts = [" ".join(word for word in one.split() if word not in ("-m", "long")) for one in commands]
    # The long plays are named as such.
    assert [part for part in {*parts} if parts.count(part) > 1] == [".venv/bin/pytest"]
    assert [one for one in commands if one.count("pytest") and commands.count(one) > 1] == []


def test_the_glossary_explains_each_word_once() -> None:
    text = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
    glossary = text[text.index("## Words") : text.index("## Layers")]
    rows = re.findall(r"^\| ([^|]+?) \| ", glossary, flags=re.MULTILINE)
    words = [word for row in rows[2:] for word in row.split(", ")]
    assert len(words) > 50
    assert sorted({word for word in words if words.count(word) > 1}) == []


CONSTANT = r"_?[A-Z][A-Z0-9_]{2,}"
LIMIT = r"\w+_(?:s|ms|bytes)|_?(?:most|least|max|min)_\w+"
# By `monkeypatch`, by hand, or in Python that another process is given.
PATCH = re.compile(
    rf"""setattr\([^()\n]*["'.](?:{CONSTANT}|{LIMIT})["']|(?<![\w."'])[a-z]\w*(?:\.\w+)*\.{CONSTANT}(?:, [\w.]+)? = """
)


def patched(text: str) -> list[str]:
    """Return what replaces a constant of a module, or a wait or limit of an object."""
    return [match.group() for match in PATCH.finditer(text)]


def test_waits_and_limits_are_passed_and_not_patched() -> None:
    own = ROOT / "tests" / "peers" / "clients"
    files = [path for name in ("tests", "relay/plugins") for path in sorted((ROOT / name).rglob("*.py"))]
    assert {
        str(path.relative_to(ROOT)): found
        for path in files
        if not path.is_relative_to(own) and path != Path(__file__) and (found := patched(path.read_text("utf-8")))
    } == {}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('monkeypatch.setattr(module, "PATIENCE_S", 0.1)', 1),
        ("monkeypatch.setattr('relay.storage.writer._BATCH_S', 0.1)", 1),
        ("before, slow_consumers.TICK_S = slow_consumers.TICK_S, 0.1", 1),
        ("    relay.app.FIRST_REQUEST_S = 1.0", 1),
        ('"import relay.app; relay.app.FIRST_REQUEST_S = 1.0"', 1),
        ('monkeypatch.setattr(http, "_most_unread_bytes", 100)', 1),
        ('monkeypatch.setattr(bus, "patience_s", 0.1)', 1),
        ('monkeypatch.setattr(socket, "write", note)', 0),
        ("limits = Limits(module.PATIENCE_S)", 0),
        ("assert module.PATIENCE_S == 1", 0),
    ],
)
def test_a_constant_that_is_patched_is_noticed(line: str, count: int) -> None:
    assert len(patched(line)) == count


@pytest.mark.parametrize(
    ("asked_for", "are_unit"),
    [
        (["tests/unit"], True),
        (["tests/unit/test_project.py::test_ci", "tests/unit"], True),
        (["tests/unit", "tests/e2e/test_cli.py"], False),
        (["tests", "relay/plugins/new-provider"], False),
        ([], False),
    ],
)
def test_a_worker_for_each_processor_runs_unit_tests_only(asked_for: list[str], are_unit: bool) -> None:
    assert are_unit_tests(asked_for, ROOT) is are_unit


def test_what_is_asked_for_is_read_from_where_pytest_runs(tmp_path: Path) -> None:
    assert are_unit_tests([".", "../unit"], ROOT / "tests" / "unit")
    assert not are_unit_tests(["tests/unit"], tmp_path)


def test_documents_install_the_relay_from_its_folder() -> None:
    # No package index has it; whoever has its name there is somebody else.
    found = {path.name: INSTALL_BY_NAME.findall(path.read_text(encoding="utf-8")) for path in DOCUMENTS}
    assert {name: commands for name, commands in found.items() if commands} == {}
