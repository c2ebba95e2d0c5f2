"""Makes the npm package of the JavaScript client: `python -m relay.packaging.npm_package`. Needs no Node.

The package has the file that the relay serves, and its types. Its bytes depend on the files of this checkout only.
"""

import argparse
import gzip
import io
import json
import tarfile
from importlib import resources
from pathlib import Path

from relay.core.version import VERSION
from relay.packaging.distributions import EPOCH, ROOT
from relay.web.joined_client import joined_client

ABOUT = Path(__file__).parent / "npm"
"""What the package says of itself; its version is that of the relay."""
_TOP = "package"
"""The folder that npm expects in an archive."""


def make(folder: Path) -> Path:
    """Write the package into a folder; return its path, which is named as npm names it."""
    about = json.loads((ABOUT / "package.json").read_text(encoding="utf-8"))
    # Name and version first, as everybody reads them.
    about = {"name": about.pop("name"), "version": VERSION, **about}
    static = resources.files("relay.web") / "static"
    files = {
        "package.json": json.dumps(about, indent=2) + "\n",
        "README.md": (ABOUT / "README.md").read_text(encoding="utf-8"),
        "LICENSE": (ROOT / "LICENSE").read_text(encoding="utf-8"),
        "client.js": joined_client(static / "client"),
        "client.d.ts": (static / "client.d.ts").read_text(encoding="utf-8"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{about['name']}-{VERSION}.tgz"
    path.write_bytes(_packed(files))
    return path


def _packed(files: dict[str, str]) -> bytes:
    """Return files as an archive without what depends on the machine or the hour."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in sorted(files.items()):
            member = tarfile.TarInfo(f"{_TOP}/{name}")
            data = text.encode()
            member.size, member.mtime, member.mode = len(data), EPOCH, 0o644
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(content.getvalue(), mtime=EPOCH)


def main() -> None:
    """Make the package where the command says."""
    parser = argparse.ArgumentParser(
        prog="python -m relay.packaging.npm_package", description=f"Makes the npm package of the client of {VERSION}."
    )
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the file  [default: dist]")
    print(make(parser.parse_args().out))


if __name__ == "__main__":
    main()
