"""Makes a base for the container image out of Debian's packages: Python, its libraries, certificates, and no shell.

Needs `mmdebstrap`, and a mirror of Debian, but no registry of images.
"""

import shutil
import subprocess
import sys
from pathlib import Path

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""Which release of Debian has which Python."""

PACKAGES = ("python3", "ca-certificates")
LEFT_OUT = (
    *(
        "usr/share/locale",
        "usr/share/man",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/perl5",
        "usr/share/pixmaps",
    ),
    *("usr/lib/*/gconv", "usr/lib/python3*/pydoc_data", "usr/lib/python3*/lib2to3"),
)
"""What a relay does not read: translations, manuals, encodings of the C library."""


def make(tar: Path) -> None:
    """Write the base as a tar file. Raises `SystemExit` when it cannot be made here."""
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        versions = ", ".join(f"{major}.{minor}" for major, minor in SUITES)
        raise SystemExit(f"no base of Debian has this Python; run it with Python {versions}, or name a base by --base")
    program = shutil.which("mmdebstrap")
    if program is None:
        raise SystemExit("mmdebstrap is missing; install it (apt-get install mmdebstrap), or name a base by --base")
    hook = f'"{sys.executable}" -m relay.packaging.debian_base "$1"'
    command = [program, "--quiet", "--variant=extract", f"--include={','.join(PACKAGES)}", f"--extract-hook={hook}"]
    subprocess.run([*command, suite, str(tar)], check=True, cwd=Path(__file__).parents[2])


def finish(root: Path) -> None:
    """Do what the packages' own scripts would have done, and delete what is not needed; mmdebstrap calls it."""
    # Which packages are in it, for programs that look for known vulnerabilities.
    status = []
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "-f", str(package)], check=True, capture_output=True, text=True).stdout
        status.append(f"{fields.rstrip()}\nStatus: install ok installed\n")
    (root / "var/lib/dpkg/status").write_text("\n".join(status), encoding="utf-8")
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    for path in (root / "usr/share/doc").rglob("*"):
        # The licences stay.
        if not path.is_dir() and path.name != "copyright":
            path.unlink()
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n", encoding="utf-8")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/nonexistent\n", encoding="utf-8")
    for name, mode in (("tmp", 0o1777), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755)):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/usr/lib/python3"]
    standard = f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    subprocess.run(["chroot", str(root), "/usr/bin/python3", *compiled, standard], check=True)


if __name__ == "__main__":
    finish(Path(sys.argv[1]))
