"""Makes the source distribution and the wheel of the relay from this checkout, the same bytes from the same files.

Needs the extra `release`.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
EPOCH = 315_532_800
"""The date of all files: 1980, the first one that every archive can say."""
_NOT_SOURCE = (
    *(".git", ".venv*", ".*_cache", "__pycache__", ".peers", ".hypothesis", ".schemathesis", ".coverage*"),
    *("node_modules", "build", "dist", "*.egg-info", "*.so", "relay.db*"),
)
ADDRESS = "RELAY_SOURCE_ADDRESS"
"""The variable by which setup.py learns where the documents are that the README links to."""


def make(folder: Path, address: str = "") -> tuple[Path, Path]:
    """Write both into a folder, and return their paths; the wheel is made of the source distribution.

    `address` is that of the repository's files, to which relative links of the README are changed. Raises `SystemExit`
    when the program that builds them is missing.
    """
    if find_spec("build") is None:
        raise SystemExit("build is missing; install it with: pip install -e '.[release]'")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), ADDRESS: address}
    # Else the native write names the folder that it was compiled in.
    environment["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} -g0".strip()
    with tempfile.TemporaryDirectory() as scratch:
        # Building leaves files where it builds, and the next build would take some of them along.
        copy = copy_source(Path(scratch, "source"))
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nthe distributions could not be built")
    (source,), (wheel,) = folder.glob("market_relay-*.tar.gz"), folder.glob("market_relay-*.whl")
    source.write_bytes(with_one_date(source.read_bytes()))
    return source, wheel


def copy_source(folder: Path) -> Path:
    """Copy what is source in this checkout, and nothing that was made of it, into a new folder; return that."""
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_NOT_SOURCE)))


def with_one_date(archive: bytes) -> bytes:
    """Return an archive (tar.gz) with the same files, sorted, without what depends on the machine or the hour."""
    content = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as given,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as made,
    ):
        for member in sorted(given.getmembers(), key=lambda one: one.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.pax_headers = EPOCH, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            made.addfile(member, given.extractfile(member) if member.isfile() else None)
    return gzip.compress(content.getvalue(), mtime=EPOCH)
