"""The JavaScript client is written as modules and served as one file; both are the same client."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import relay.client
from relay.web.joined_client import joined_client
from tests.support.javascript_client import node_of, run_node
from tests.support.served_files import MODULES, client_file
from tests.support.tools import npm_tool

OPTIONS = Path(__file__).parents[1] / "js" / "tsconfig.json"


def test_modules_are_named_as_those_of_the_python_client() -> None:
    def names(folder: Path, ending: str) -> set[str]:
        return {file.stem for file in folder.glob(f"*.{ending}")}

    python = names(Path(relay.client.__file__).parent, "py") - {"__init__"}
    # What is told are plain objects in JavaScript, described in `client.d.ts`, and there are no data frames.
    assert names(MODULES, "js") - {"index"} == python - {"messages", "data_frame"}


async def test_one_file_exports_what_the_modules_do_and_imports_nothing(request: pytest.FixtureRequest) -> None:
    # That Node takes it says also that no two modules give two things the same name.
    script = f"""const [whole, parts] = [await import("{client_file()}"), await import("{MODULES / "index.js"}")];
        console.log(JSON.stringify([Object.keys(whole), Object.keys(parts)]));"""
    whole, parts = await run_node(node_of(request.config), script)
    assert whole == parts
    assert "RelayClient" in whole
    text = client_file().read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if re.match(r"(import|export)\b", line)] == ["export {"]


def test_one_file_has_all_modules_each_after_those_that_it_needs() -> None:
    text = client_file().read_text(encoding="utf-8")
    assert text.startswith('// @ts-self-types="./client.d.ts"\n// @ts-check\n/**\n * Client of a market relay')
    heads = {}
    for file in MODULES.iterdir():
        source = file.read_text(encoding="utf-8")
        heads[file.name] = text.find(source.splitlines()[1])
        assert heads[file.name] > 0
    for file in MODULES.iterdir():
        for needed in re.findall(r'^import [^;]*"\./(\w+\.js)";$', file.read_text(encoding="utf-8"), re.MULTILINE):
            assert heads[needed] < heads[file.name]


def test_one_file_is_formatted_and_a_compiler_finds_no_wrong_type(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (tmp_path / "client.js").write_bytes(client_file().read_bytes())
    options = json.loads(OPTIONS.read_text(encoding="utf-8"))["compilerOptions"]
    del options["rootDirs"], options["types"]
    settings = {"compilerOptions": options, "files": ["client.js"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    for command in (
        (npm_tool("tsc", request.config), "--project", str(tmp_path)),
        (npm_tool("prettier", request.config), "--check", "--print-width", "120", str(tmp_path / "client.js")),
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ('import { one } from "./index.js";\n', "index.js imports other.js imports index.js"),
        ('import * as one from "./one.js";\n', "import * as one from"),
        ('import { one as two } from "./one.js";\n', "import { one as two }"),
        ("export let one = 1;\n", "export let one = 1"),
        ("export default class {}\n", "export default class"),
    ],
)
def test_what_cannot_be_joined_is_named(tmp_path: Path, other: str, why: str) -> None:
    (tmp_path / "index.js").write_text('// @ts-check\n\nexport { two } from "./other.js";\n')
    (tmp_path / "other.js").write_text(f"// @ts-check\n\n{other}")
    with pytest.raises(ValueError, match=re.escape(why)):
        joined_client(tmp_path)


def test_modules_are_joined_once_and_links_go(tmp_path: Path) -> None:
    (tmp_path / "index.js").write_text('// @ts-check\n/** Two. */\n\nexport { two } from "./two.js";\n')
    (tmp_path / "two.js").write_text(
        '// @ts-check\n// The second.\n\nimport { one } from "./one.js";\nimport {\n  half,\n} from "./half.js";\n\n'
        "export const two = one + 2 * half;\n"
    )
    (tmp_path / "one.js").write_text('// @ts-check\nimport { half } from "./half.js";\n\nexport const one = half;\n')
    (tmp_path / "half.js").write_text("// @ts-check\nexport const half = 0.5;\n")
    assert joined_client(tmp_path) == (
        '// @ts-self-types="./client.d.ts"\n// @ts-check\n/** Two. */\n\n'
        "const half = 0.5;\n\nconst one = half;\n\n// The second.\n\nconst two = one + 2 * half;\n"
        "\nexport {\n  two,\n};\n"
    )
