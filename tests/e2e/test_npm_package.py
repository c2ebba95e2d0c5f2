"""The JavaScript client as a package of npm: what is in it, and what somebody does with it who installs it."""

import asyncio
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import orjson
import pytest

from relay.core.version import VERSION
from relay.packaging import npm_package
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.javascript_client import node_of
from tests.support.running_relay import Running
from tests.support.served_files import client_file
from tests.support.tools import npm_tool, tool

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "npm_program"
NODE_MODULES = ROOT / "tests" / "js" / "node_modules"
COMPILER = {
    "strict": True,
    "target": "ES2023",
    "module": "ESNext",
    "moduleResolution": "Bundler",
    "lib": ["ES2024", "DOM", "DOM.Iterable", "DOM.AsyncIterable"],
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is released."""
    return npm_package.make(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    """A project into which npm installed the package, with a program and its compiler settings."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    npm = tool("npm", "npm", request.config)
    run(npm, "install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", str(archive), cwd=folder)
    shutil.copy(PROGRAM / "program.ts", folder)
    return folder


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compile_types(request: pytest.FixtureRequest, folder: Path, *files: str, **options: object) -> None:
    """Have a compiler judge files of a folder, by strict settings."""
    settings = {"compilerOptions": COMPILER | options, "files": files}
    (folder / "tsconfig.json").write_text(json.dumps(settings))
    run(npm_tool("tsc", request.config), "--project", str(folder), cwd=folder)


def test_package_has_the_client_that_the_relay_serves(archive: Path) -> None:
    assert archive.name == f"market-relay-client-{VERSION}.tgz"
    with tarfile.open(archive) as opened:
        files = {
            member.name.removeprefix("package/"): found.read()
            for member in opened
            if (found := opened.extractfile(member)) is not None
        }
    assert {"package.json", "README.md", "LICENSE", "client.js", "client.d.ts"} == files.keys()
    assert files["client.js"] == client_file().read_bytes()
    assert files["client.d.ts"] == client_file().with_name("client.d.ts").read_bytes()
    assert files["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    about = json.loads(files["package.json"])
    assert (about["version"], about["type"], about["license"]) == (VERSION, "module", "MIT")


def test_package_is_the_same_when_it_is_made_again(archive: Path, tmp_path: Path) -> None:
    assert npm_package.make(tmp_path).read_bytes() == archive.read_bytes()


def test_npm_packs_the_same_files(request: pytest.FixtureRequest, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
        names = {name.removeprefix("package/") for name in opened.getnames()}
    packed = run(tool("npm", "npm", request.config), "pack", "--dry-run", "--json", cwd=tmp_path / "package")
    (about,) = json.loads(packed) if packed.startswith("[") else json.loads(packed).values()
    assert {file["path"] for file in about["files"]} == names
    assert (about["name"], about["filename"]) == ("market-relay-client", archive.name)


def test_typescript_finds_its_types(request: pytest.FixtureRequest, project: Path) -> None:
    types = {"types": ["node"], "typeRoots": [str(NODE_MODULES / "@types")]}
    compile_types(request, project, "program.ts", noEmit=True, module="NodeNext", moduleResolution="NodeNext", **types)


def test_types_are_those_of_the_client(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    shutil.copy(client_file(), tmp_path)
    compile_types(
        request,
        tmp_path,
        "client.js",
        allowJs=True,
        noImplicitAny=False,
        declaration=True,
        emitDeclarationOnly=True,
        outDir="made",
    )
    shutil.copy(client_file().with_name("client.d.ts"), tmp_path)
    (tmp_path / "client.js").unlink()
    shutil.copy(PROGRAM / "same_types.ts", tmp_path)
    compile_types(request, tmp_path, "same_types.ts", noEmit=True)


@pytest.mark.parametrize("is_bundled", [False, True], ids=["installed", "bundled"])
async def test_a_program_gets_candles_of_a_relay(
    request: pytest.FixtureRequest, relay: Running, project: Path, tmp_path: Path, is_bundled: bool
) -> None:
    folder = tmp_path if is_bundled else project
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    how = ["--bundle", "--minify"] if is_bundled else []
    esbuild = npm_tool("esbuild", request.config)
    run(esbuild, "program.ts", *how, "--format=esm", f"--outfile={folder / 'program.js'}", cwd=project)
    process = await asyncio.create_subprocess_exec(
        node_of(request.config), "program.js", relay.url, "BTCUSDT@1s", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), LONGEST_WAIT_S)
    assert process.returncode == 0
    times = [candle["time"] for candle in orjson.loads(out)]
    assert times == list(range(times[0], times[0] + 3))
