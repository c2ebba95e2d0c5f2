"""Docker's own daemon in namespaces of its own, and the images of others that the compose files name. Root only.

Ports, addresses and packet filters of the machine stay as they are, and no image comes from a registry: the programs
of others are those of this machine, under the names that the files give them.
"""

import io
import json
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import CLEAN

ROOT = Path(__file__).parents[2]
_START = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Switches loopback on, which a new network has off, and becomes the daemon."""
_NOWHERE = "203.0.113.1"
"""Its name server never answers, as one that cannot be reached."""
_FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"


class CannotRun(Exception):
    """The machine lets no daemon, or no container of it, run; the text says why."""


class Engine:
    """A daemon, and commands for it; programs can be run in its network, where the published ports are."""

    def __init__(self, folder: Path, dockerd: str) -> None:
        self._folder = folder
        self._dockerd = dockerd
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"unix://{folder}/docker.sock"
        self.environment = {**CLEAN, "DOCKER_HOST": self.address}
        """For programs that talk to it."""

    def start(self) -> None:
        """Start it, and wait until it takes commands and runs containers. Raises `CannotRun`."""
        own = self._folder
        words = ["--data-root", f"{own}/data", "--exec-root", f"{own}/exec", "--pidfile", f"{own}/pid"]
        words += ["--host", self.address, "--dns", _NOWHERE, *self._runtime()]
        space = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        with (own / "log").open("wb") as log:
            command = [*space, sys.executable, "-c", _START, self._dockerd, *words]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + LONGEST_WAIT_S
        while self.run("docker", "version").returncode:
            said = (own / "log").read_text(errors="replace")[-3000:]
            if self._process.poll() is not None:
                raise CannotRun(f"Docker's daemon does not run here: {said.strip().rpartition(chr(10))[2]}")
            assert time.monotonic() < until, said
            time.sleep(0.2)
        # In a container of its own it may serve and yet not be allowed to group processes.
        self.make("probe", shutil.which("true") or "/bin/true", settings=['ENTRYPOINT ["true"]'], folders={})
        probe = self.run("docker", "run", "--rm", "--network", "none", "probe")
        if probe.returncode:
            raise CannotRun(f"Docker runs no containers here: {probe.stderr.strip()}")

    def _runtime(self) -> list[str]:
        """Return what has containers ask for no more open files than this machine grants to root."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most == resource.RLIM_INFINITY or most >= 65_536:
            return []
        script = self._folder / "granted"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {ROOT}/tests/support/granted_files.py "$@"\n')
        script.chmod(0o755)
        return ["--add-runtime", f"granted={script}", "--default-runtime", "granted"]

    def stop(self) -> None:
        """End it and all that runs in it, and delete its images: they are large."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def run(
        self, *command: str, cwd: Path | None = None, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command against the daemon to its end; `more` are variables for it."""
        environment = {**self.environment, **(more or {})}
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    def begin(
        self, *command: str, cwd: Path | None = None, more: Mapping[str, str] | None = None, is_inside: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start a command that goes on; what it prints is not kept. With `is_inside` it has the published ports."""
        environment = {**self.environment, **(more or {})}
        words = self.inside(*command) if is_inside else command
        return subprocess.Popen(words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL)

    def docker(self, *words: str, cwd: Path | None = None) -> str:
        """Run a `docker` command that has to succeed; return what it printed."""
        done = self.run("docker", *words, cwd=cwd)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs another one where the published ports are."""
        assert self._process is not None
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *command]

    def relay(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this checkout's `relay` as a client on the machine of the engine."""
        environment = {"RELAY_URL": "http://127.0.0.1:8000", "PYTHONPATH": str(ROOT), **more}
        return self.run(*self.inside(sys.executable, "-m", "relay", *words), more=environment)

    def get(self, url: str) -> Any:
        """Return the JSON that a service answers with on the machine of the engine, with status 200."""
        done = self._fetch(url)
        assert done.returncode == 0, f"{url}\n{done.stderr}"
        return json.loads(done.stdout)

    def answers(self, url: str) -> bool:
        """Say whether a service on the machine of the engine answers with status 200."""
        return self._fetch(url).returncode == 0

    def _fetch(self, url: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.inside(sys.executable, "-c", _FETCH, url))

    def make(self, image: str, program: str, *, settings: Sequence[str], folders: Mapping[str, int]) -> None:
        """Make an image of one program of this machine with the libraries that it loads.

        `settings` are lines of a Dockerfile, `folders` those that belong to a user.
        """
        needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
            tar.add(program, f"bin/{Path(program).name}")
            for library in re.findall(r"(/\S+)", needed):
                tar.add(library, library)
            for name, user in folders.items():
                about = tarfile.TarInfo(name)
                about.type, about.mode, about.uid = tarfile.DIRTYPE, 0o755, user
                tar.addfile(about)
        changes = [word for line in ("ENV PATH=/bin", *settings) for word in ("--change", line)]
        command = ["docker", "--host", self.address, "import", *changes, "-", image]
        done = subprocess.run(command, input=packed.getvalue(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()


class Project:
    """The services of some compose files, in the copy of a checkout."""

    def __init__(self, engine: Engine, checkout: Path, *files: str) -> None:
        self._engine = engine
        self._checkout = checkout
        self._files = [word for file in files for word in ("-f", file)]

    def run(self, *words: str) -> str:
        """Run a `docker compose` command that has to succeed; return what it printed."""
        return self._engine.docker("compose", *self._files, *words, cwd=self._checkout)

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container of a service."""
        words = ("docker", "compose", *self._files, "exec", "-T", service, *command)
        return self._engine.run(*words, cwd=self._checkout)

    def about(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of the container of a service."""
        found: list[dict[str, Any]] = json.loads(self._engine.docker("inspect", self.run("ps", "-aq", service).strip()))
        return found[0]
