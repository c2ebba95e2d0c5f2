"""The container image, built and run without a network and without an engine: marker `image`, run by .ci/run.

It runs as any user, with a read-only root, and does the relay's main job.
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from relay.core.version import VERSION
from tests.support.container import ROOT, TAG, Image
from tests.support.free_ports import free_port

pytestmark = [pytest.mark.image, pytest.mark.timeout(900), pytest.mark.real_time]

PACKAGING = ROOT / "relay" / "packaging"
MOST_BYTES = 120_000_000
GRACE_S = 10.0
"""After so long an engine kills a container that was told to stop."""
PREFIX = "/api/v1/market-data"
SANDBOX = ("serve", "--sandbox", "--forex-always-open", "--insecure", "--database", "/data/relay.db")


@pytest.fixture
def user() -> int:
    """A user that the image knows nothing of."""
    return random.randint(100_000, 2_000_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own that all may write to."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m,mode=1777", "tmpfs"]
    subprocess.run(["mount", *options, str(place)], capture_output=True, check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def candle_times(url: str, count: int) -> list[int]:
    """Return the open times of the first candles that close."""
    found: list[int] = []
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}{PREFIX}/ws") as ws, asyncio.timeout(60):
        await ws.send_json({"action": "subscribe", "streams": ["BTCUSDT@1s"], "closed_only": True})
        while len(found) < count:
            message = await ws.receive_json()
            assert message["type"] != "error", message
            if message["type"] == "price_update":
                found.append(message["candle"]["time"])
    return found


def test_image_is_small_and_runs_as_nobody_in_particular(image: Image) -> None:
    size = image.size()
    print(f"{size / 1e6:.1f} MB")
    assert size < MOST_BYTES
    config = image.config
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["relay"], ["serve"])
    assert (config["Volumes"], config["WorkingDir"], config["StopSignal"]) == ({"/data": {}}, "/data", "SIGTERM")
    assert config["Healthcheck"]["Test"] == ["CMD", "relay", "health"]
    assert [name for name in ("bin/sh", "bin/dash", "usr/bin/sh", "usr/bin/apt") if (image.tree / name).exists()] == []


def test_archive_holds_the_image_by_its_name(image: Image) -> None:
    with tarfile.open(image.sbom.parent / "image.tar.gz") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (found,) = json.load(manifest)
    # Behind the names of registries that an engine takes it for.
    assert {name.rpartition("/")[2] for name in found["RepoTags"]} == {TAG}


def test_bill_of_materials_lists_python_packages_and_those_of_debian(image: Image) -> None:
    found = json.loads(image.sbom.read_text(encoding="utf-8"))
    urls = {one["purl"].partition("@")[0] for one in found["components"]}
    assert found["metadata"]["component"]["purl"] == f"pkg:pypi/market-relay@{VERSION}"
    assert {"pkg:pypi/aiohttp", "pkg:pypi/orjson", "pkg:deb/debian/libssl3", "pkg:generic/python"} <= urls
    assert not {"pkg:pypi/pip", "pkg:pypi/pytest"} & urls
    # Nothing that was installed is left out of it.
    python = {url for url in urls if url.startswith("pkg:pypi/")}
    assert {f"pkg:pypi/{name}" for name in image.python_packages()} == python | {"pkg:pypi/market-relay"}


def test_it_trusts_the_certificates_that_debian_trusts(image: Image, tmp_path: Path, user: int) -> None:
    script = "import ssl; print(ssl.create_default_context().cert_store_stats()['x509_ca'])"
    trusted = int(image.run(tmp_path, user, "python", "-c", script).stdout)
    assert trusted >= len(ssl.create_default_context().get_ca_certs()) // 2
    assert trusted > 50


def test_open_to_other_machines_without_a_token_it_does_not_start(image: Image, tmp_path: Path, user: int) -> None:
    refused = image.run(tmp_path, user, "relay", "serve")
    assert refused.returncode == 2
    assert "RELAY_TOKENS" in refused.stderr


async def test_any_user_gets_candles_from_a_read_only_root_and_a_stop_is_quick(
    image: Image, disk: Path, user: int
) -> None:
    port = str(free_port())
    began = time.monotonic()
    async with image.serving(disk, user, *SANDBOX, RELAY_PORT=port) as container:
        print(f"ready after {time.monotonic() - began:.2f} s")
        times = await candle_times(container.url, 3)
        assert times == [times[0] + second for second in range(3)]
        health = image.run(disk, user, *image.config["Healthcheck"]["Test"][1:], RELAY_PORT=port)
        assert (health.returncode, health.stdout) == (0, "healthy\n"), health.stderr
        copied = image.run(disk, user, "relay", "store", "--backup", "/data/copy.db")
        assert copied.returncode == 0, copied.stderr
        began = time.monotonic()
        container.signal(signal.SIGTERM)
        async with asyncio.timeout(GRACE_S):
            assert await container.ended() == 0
        print(f"stopped after {time.monotonic() - began:.2f} s")
    assert "could not" not in "\n".join(container.err)
    assert (disk / "relay.db").stat().st_uid == user


async def test_candles_survive_a_kill(image: Image, disk: Path, user: int) -> None:
    async with image.serving(disk, user, *SANDBOX, RELAY_PORT=str(free_port())) as container:
        times = await candle_times(container.url, 3)
        container.signal(signal.SIGKILL)
        await container.ended()
    async with image.serving(disk, user, *SANDBOX, RELAY_PORT=str(free_port())) as container:
        assert len(await candle_times(container.url, 1)) == 1
    checked = image.run(disk, user, "relay", "store", "--check")
    assert checked.returncode == 0, checked.stdout
    with contextlib.closing(sqlite3.connect(disk / "relay.db")) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM candles WHERE time IN (?, ?)", times[:2]).fetchone()
    assert stored == 2


async def test_a_full_disk_ends_neither_the_relay_nor_its_health(image: Image, disk: Path, user: int) -> None:
    port = str(free_port())
    async with image.serving(disk, user, *SANDBOX, RELAY_PORT=port) as container, aiohttp.ClientSession() as http:

        async def is_ready() -> bool:
            async with http.get(f"{container.url}/readyz") as answer:
                return answer.status == 200

        async def becomes(ready: bool) -> None:
            async with asyncio.timeout(60):
                while await is_ready() is not ready:  # noqa: ASYNC110  a route tells nobody that it changes
                    await asyncio.sleep(0.2)

        following = asyncio.create_task(candle_times(container.url, 10))
        await becomes(True)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 512)
        await becomes(False)
        health = image.run(disk, user, "relay", "health", RELAY_PORT=port)
        assert health.returncode == 0, health.stderr
        ready = image.run(disk, user, "relay", "health", "--ready", RELAY_PORT=port)
        assert ready.returncode == 1
        assert "the disk is full" in ready.stderr
        times = await following
        assert times == [times[0] + second for second in range(10)]
        filler.unlink()
        await becomes(True)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_lock_has_what_the_base_of_a_plain_build_needs(tmp_path: Path, machine: str) -> None:
    written = (PACKAGING / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE=docker\.io/library/python:(3\.\d+)-slim$", written, re.MULTILINE)
    assert found is not None
    assert f"Programming Language :: Python :: {found[1]}\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in ("_2_28", "_2_17", "2014")]
    words = ["--dry-run", "--require-hashes", "--no-deps", "--only-binary=:all:", f"--python-version={found[1]}"]
    command = [sys.executable, "-m", "pip", "install", "-q", *words, *platforms, f"--target={tmp_path}"]
    said = subprocess.run([*command, "-r", str(PACKAGING / "lock.txt")], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
