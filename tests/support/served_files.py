"""The files of the pages and the JavaScript client, laid out in a folder as the relay serves them."""

import atexit
import shutil
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

from relay.web.joined_client import joined_client

STATIC = Path(str(resources.files("relay.web"))) / "static"
MODULES = STATIC / "client"


def lay_out(folder: Path) -> Path:
    """Write the client to `client.js` and `client.d.ts` of a folder, the rest to `static`; return the former."""
    shutil.copytree(STATIC, folder / "static", ignore=shutil.ignore_patterns("client", "client.d.ts"))
    shutil.copy(STATIC / "client.d.ts", folder)
    (folder / "package.json").write_text('{"type":"module"}', encoding="utf-8")
    client = folder / "client.js"
    client.write_text(joined_client(MODULES), encoding="utf-8")
    return client


@cache
def client_file() -> Path:
    """Return the client as one file, as people copy it, with its types beside it."""
    folder = Path(tempfile.mkdtemp(prefix="relay-client-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return lay_out(folder)
