"""Writes what an installation consists of as a CycloneDX document: `python -m relay.packaging.sbom`.

With dpkg's list of packages, as a container image has it, those are in it too.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relay.core.version import VERSION
from relay.packaging.components import NAME, Component, components

FORMAT = "1.5"
_JOINED = re.compile(r" (?:AND|OR) ")
_IDENTIFIERS = frozenset(
    {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Python-2.0", "blessing"}
)
"""Licences by their names in the list of SPDX; what packages call others is not always a name of that list."""


def document(debian: str = "") -> dict[str, Any]:
    """Return the document; `debian` is the text of dpkg's list of packages. It is the same for the same packages."""
    own, *others = sorted(components(), key=lambda one: one.name != NAME)
    listed = [*map(_entry, others), *_debian(debian)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": FORMAT,
        "version": 1,
        "metadata": {"component": {**_entry(own), "type": "application", "version": VERSION}},
        "components": listed,
        "dependencies": [{"ref": _url(own), "dependsOn": [one["bom-ref"] for one in listed]}],
    }


def _url(one: Component) -> str:
    return f"pkg:pypi/{one.name}@{one.version}" if one.is_package else f"pkg:generic/{one.name.lower()}@{one.version}"


def _entry(one: Component) -> dict[str, Any]:
    entry = {"type": "library", "name": one.name, "version": one.version, "purl": _url(one), "bom-ref": _url(one)}
    if not one.licence:
        return entry
    if _IDENTIFIERS.issuperset(_JOINED.split(re.sub(r"[()]", "", one.licence))):
        return {**entry, "licenses": [{"expression": one.licence}]}
    return {**entry, "licenses": [{"license": {"name": one.licence}}]}


def _debian(status: str) -> Iterator[dict[str, Any]]:
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[\w-]+: ", line))
        if "installed" in fields.get("Status", ""):
            name, version = fields["Package"], fields["Version"]
            url = f"pkg:deb/debian/{name}@{version.replace(':', '%3A')}?arch={fields['Architecture']}"
            yield {"type": "library", "name": name, "version": version, "purl": url, "bom-ref": url}


def main() -> None:
    """Print the document of the installation that this Python belongs to."""
    parser = argparse.ArgumentParser(prog="python -m relay.packaging.sbom", description="Prints a CycloneDX document.")
    parser.add_argument("--debian", type=Path, metavar="FILE", help="dpkg's list of packages (var/lib/dpkg/status)")
    given = parser.parse_args().debian
    listed = given.read_text(encoding="utf-8") if given is not None and given.is_file() else ""
    json.dump(document(listed), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
