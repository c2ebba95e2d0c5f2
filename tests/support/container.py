"""Container images in a storage of a test's own, and containers of them: as locked up as an engine would run them.

They are run by the kernel's namespaces alone, since an engine needs more than a machine for tests may have. Root only.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.relay_process import SAYS, Serving

ROOT = Path(__file__).parents[2]
TAG = "market-relay:test"
_START = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount --bind "$2" "$1/data"
mount -o remount,bind,ro "$1"
root=$1 user=$3
shift 3
exec setpriv --no-new-privs chroot --userspec="$user:$user" "$root" "$@"
"""
"""Makes the root read-only but for /data, and becomes the command as another user."""


class Images:
    """What `buildah` builds, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "storage.conf"
        places = f'graphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
        settings.write_text(f'[storage]\ndriver = "vfs"\n{places}', encoding="utf-8")
        self.environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(settings), "BUILDAH_ISOLATION": "chroot"}
        self.environment.pop("STORAGE_DRIVER", None)

    def build(self, commands: Sequence[str], checkout: Path, tag: str, out: Path) -> str:
        """Build the image in a checkout by lines for a shell, the last of which takes more options; return what
        that one printed."""
        # The name of a Python with which a base can be made, among several of the machine.
        shim = self.folder / "bin" / "python3"
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        shim.chmod(0o755)
        self.environment["PATH"] = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
        for line in commands[:-1]:
            self._run("sh", "-c", line, cwd=checkout)
        more = f"--engine buildah --tag {tag} --out {out} --archive {out}/image.tar.gz"
        return self._run("sh", "-c", f"{commands[-1]} {more}", cwd=checkout)

    def save(self, tag: str, file: Path) -> None:
        """Write an image into a file that Docker loads under the same name."""
        self._run("buildah", "push", "--quiet", tag, f"docker-archive:{file}:{tag}")

    def tag(self, tag: str, other: str) -> None:
        """Give an image another name, too."""
        self._run("buildah", "tag", tag, other)

    def config(self, tag: str) -> dict[str, Any]:
        """Return what an image says about how it is run."""
        found: dict[str, Any] = json.loads(self._run("buildah", "inspect", "--type", "image", tag))["Docker"]["config"]
        return found

    def tree(self, tag: str) -> Path:
        """Return the folder with the files of a new container."""
        container = self._run("buildah", "from", "--pull-never", tag).strip()
        return Path(self._run("buildah", "mount", container).strip())

    def delete(self) -> None:
        """Delete all images and containers: they are large."""
        for name in ("images", "run"):
            shutil.rmtree(self.folder / name)

    def _run(self, *command: str, cwd: Path = ROOT) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


class Image(NamedTuple):
    """An image, its files as a container has them, what it consists of, and where it is stored."""

    tree: Path
    config: dict[str, Any]
    sbom: Path
    images: Images

    def size(self) -> int:
        """Return the bytes of all files; those with several names count once."""
        found = {}
        for path in [self.tree, *self.tree.rglob("*")]:
            about = path.lstat()
            found[about.st_ino] = about.st_blocks * 512 if path.is_dir() else about.st_size
        return sum(found.values())

    def python_packages(self) -> set[str]:
        """Return the names of all Python packages that are installed in it."""
        found = self.tree.glob("opt/relay/lib/python3*/site-packages/*.dist-info")
        return {path.name.partition("-")[0].replace("_", "-").lower() for path in found}

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a container."""
        own: dict[str, str] = dict(pair.split("=", 1) for pair in self.config["Env"])
        return {**own, **more}

    def command(self, data: Path, user: int, *words: str) -> list[str]:
        """Return what runs words in a new container, in namespaces of its own."""
        space = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*space, "sh", "-c", _START, "sh", str(self.tree), str(data), str(user), *words]

    def run(self, data: Path, user: int, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run words in a new container to their end."""
        command = self.command(data, user, *words)
        environment = self.environment(more)
        # What starts it is a program of the machine.
        environment["PATH"] += os.pathsep + os.environ["PATH"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @asynccontextmanager
    async def serving(self, data: Path, user: int, *words: str, **more: str) -> AsyncIterator["Container"]:
        """Run the image with these words behind its entry point, until it is ended or the block is left."""
        environment = self.environment(more)
        environment["PATH"] += os.pathsep + os.environ["PATH"]
        process = await asyncio.create_subprocess_exec(
            *self.command(data, user, *self.config["Entrypoint"], *words),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        container = Container(process)
        try:
            found = SAYS.match(await container.says(SAYS.match, container.out))
            assert found is not None
            container.url = found[1].replace("0.0.0.0", "127.0.0.1")
            yield container
        finally:
            container.signal(signal.SIGKILL)
            await container.ended()


class Container(Serving):
    """A relay in a container, as seen from outside."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process in the container."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            for child in children.split():
                os.kill(int(child), number)
