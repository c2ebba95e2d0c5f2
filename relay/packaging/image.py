"""Builds the container image without a network inside: `python -m relay.packaging.image`. Needs the extra `release`.

All packages are fetched before, by the hashes of the lock, into the build's context. The base is made of Debian's
packages, or named.
"""

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from relay.core.version import VERSION
from relay.packaging import debian_base, distributions

HERE = Path(__file__).parent
ENGINES = ("buildah", "podman", "docker")
BASE = "localhost/market-relay-base"
DOCKERFILE = "relay/packaging/Dockerfile"
SBOM = "/opt/relay/sbom.cdx.json"
NEEDED = ("Dockerfile", "fill_image.py", "lock.txt")


def fill_context(folder: Path) -> None:
    """Put into a folder all that the Dockerfile needs: itself, the lock, and each package as a wheel."""
    own = folder / "relay" / "packaging"
    own.mkdir(parents=True)
    for name in NEEDED:
        shutil.copy(HERE / name, own)
    wheels = folder / "wheels"
    fetch_packages(wheels)
    source, _ = distributions.make(wheels)
    source.unlink()


def fetch_packages(wheels: Path) -> None:
    """Fetch all that the image is installed from or by, but for the relay itself, by the hashes of the locks."""
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--require-hashes"]
    fetch += ["--no-deps", "--only-binary", ":all:", "--dest", str(wheels)]
    for lock in ("lock.txt", "lock-build.txt"):
        subprocess.run([*fetch, "-r", str(HERE / lock)], check=True)


def build(engine: str, base: str | None, tag: str, folder: Path) -> Path:
    """Build the image and write what it consists of into a folder; return that file."""
    with tempfile.TemporaryDirectory() as scratch:
        if base is None:
            base = _debian(engine, Path(scratch, "base"))
        context = Path(scratch, "context")
        fill_context(context)
        command = [*_building(engine), "--build-arg", f"BASE={base}", "-f", str(context / DOCKERFILE)]
        _run([*command, "-t", tag, str(context)])
        # Out of the image, since an engine that keeps no layers would make all of it again.
        taking = Path(scratch, "taking")
        taking.mkdir()
        (taking / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={tag} {SBOM} /\n", encoding="utf-8")
        _run([*_building(engine), "--output", f"type=local,dest={scratch}/sbom", str(taking)])
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(Path(scratch, "sbom", "sbom.cdx.json"), folder / f"market-relay-{VERSION}.cdx.json"))


def _debian(engine: str, folder: Path) -> str:
    folder.mkdir()
    debian_base.make(folder / "base.tar")
    (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
    _run([*_building(engine), "-f", str(folder / "Dockerfile"), "-t", BASE, str(folder)])
    return BASE


def _building(engine: str) -> list[str]:
    # All that it needs was fetched and checked before.
    command = [engine, "build", "--network", "none"]
    if engine == "docker":
        return command
    # The other format has no health check. Files and image have one date, so that the same content is the same image.
    return [*command, "--format", "docker", "--timestamp", str(distributions.EPOCH)]


def save(engine: str, tag: str, archive: Path) -> None:
    """Write the image into a file (tar.gz) that `docker load` and `podman load` read."""
    with tempfile.TemporaryDirectory() as scratch:
        tar = Path(scratch, "image.tar")
        if engine == "buildah":
            _run([engine, "push", "--quiet", tag, f"docker-archive:{tar}:{tag}"])
        else:
            _run([engine, "save", "--output", str(tar), tag])
        with tar.open("rb") as plain, gzip.GzipFile(archive, "wb", 6, mtime=distributions.EPOCH) as packed:
            shutil.copyfileobj(plain, packed)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{command[0]} could not build the image")


def main() -> None:
    """Build, and say what was built."""
    parser = argparse.ArgumentParser(prog="python -m relay.packaging.image", description="Builds the container image.")
    parser.add_argument("--base", metavar="IMAGE", help="base with this Python  [default: made by mmdebstrap]")
    parser.add_argument("--tag", default=f"market-relay:{VERSION}", help="name of the image  [default: %(default)s]")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the SBOM  [default: dist]")
    parser.add_argument("--engine", choices=ENGINES, help="what builds  [default: the first that is installed]")
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="also write the image as a file (tar.gz) for docker load"
    )
    given = parser.parse_args()
    engine = given.engine or next(filter(shutil.which, ENGINES), None)
    if engine is None:
        raise SystemExit(f"none of {', '.join(ENGINES)} is installed")
    sbom = build(engine, given.base, given.tag, given.out)
    if given.archive:
        save(engine, given.tag, given.archive)
    print(f"{given.tag}, and what it consists of in {sbom}")


if __name__ == "__main__":
    main()
