"""The pages for people and what they load: files of this package, read once, sent with a strict content policy."""

import gzip
import hashlib
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable

from aiohttp import web

from relay.core.errors import Code
from relay.core.hosts import parse_host
from relay.protocol.fields import shown
from relay.web.access.access import ACCESS
from relay.web.joined_client import joined_client
from relay.web.problems import problem

CHARTS_FILE = "lightweight-charts.js"
CLIENT_FILE = "client.js"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
_PACKED = {".html", ".css", ".js", ".ts", ".svg"}
_ON_TOP = {"": "index.html", "status.html": "status.html", CLIENT_FILE: CLIENT_FILE, "client.d.ts": "client.d.ts"}
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
)


class Asset:
    """One file as it is sent: plain and packed, each with its tag."""

    def __init__(self, name: str, plain: bytes) -> None:
        self.plain = plain
        ending = "." + name.rpartition(".")[2]
        self.content_type = _TYPES.get(ending, "application/octet-stream")
        self.packed = gzip.compress(self.plain, mtime=0) if ending in _PACKED else None
        self.tag = hashlib.sha256(self.plain).hexdigest()[:24]


class Pages:
    """The files by name, each read once. A name is looked up in a table, never turned into a path."""

    def __init__(self) -> None:
        own = resources.files("relay.web") / "static"
        self._files: dict[str, Traversable] = {file.name: file for file in own.iterdir() if file.is_file()}
        self._files[CHARTS_FILE] = resources.files("litecharts") / "js" / CHARTS_FILE
        self._files[CLIENT_FILE] = own / "client"
        self._assets: dict[str, Asset] = {}

    @property
    def names(self) -> list[str]:
        """The names of all files, sorted."""
        return sorted(self._files)

    def get(self, name: str) -> Asset | None:
        """Return a file, or None if there is none of that name."""
        if name not in self._assets and name in self._files:
            file = self._files[name]
            plain = joined_client(file).encode() if name == CLIENT_FILE else file.read_bytes()
            self._assets[name] = Asset(name, plain)
        return self._assets.get(name)

    async def top(self, request: web.Request) -> web.Response:
        """Serve what has an address of its own, such as the chart page at `/`, which others may show in a frame."""
        is_embedded = request.path == "/" and request.query.get("embed") == "1"
        frames = request.app[ACCESS].config.frame_ancestors if is_embedded else ()
        return self._send(request, _ON_TOP[request.path[1:]], frames)

    async def static(self, request: web.Request) -> web.Response:
        """Serve what the pages load."""
        return self._send(request, request.match_info["name"])

    def _send(self, request: web.Request, name: str, frames: Sequence[str] = ()) -> web.Response:
        asset = self.get(name)
        if asset is None:
            return problem(404, Code.NOT_FOUND, f"there is no {shown(request.path)}")
        is_packed = asset.packed is not None and "gzip" in request.headers.get("Accept-Encoding", "").lower()
        etag = f'"{asset.tag}{"-gz" if is_packed else ""}"'
        headers = {
            "ETag": etag,
            # Asked for again each time, answered with 304: an upgraded relay never runs with half of an old page.
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            "Content-Security-Policy": policy(request.host, frames),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }
        if not frames:
            # It knows no list of origins.
            headers["X-Frame-Options"] = "DENY"
        if name == CLIENT_FILE:
            headers["X-TypeScript-Types"] = "./client.d.ts"
        if any(tag.value == etag.strip('"') or tag.value == "*" for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = asset.content_type
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=asset.packed if is_packed else asset.plain, headers=headers)


def policy(host: str, frames: Sequence[str] = ()) -> str:
    """Return the content policy of a page loaded from `host`: own files and own sockets, nothing inline.

    Pages of the origins `frames` may show it in a frame.
    """
    # Safari before 15.4 does not count a WebSocket as 'self'. A policy cannot name an IPv6 address.
    sockets = f" ws://{host} wss://{host}" if "[" not in host and parse_host(host) is not None else ""
    ancestors = " ".join(frames) or "'none'"
    return "; ".join([*_POLICY, f"frame-ancestors {ancestors}", f"connect-src 'self'{sockets}"])


def routes() -> list[web.RouteDef]:
    """Return the routes of the pages. Reads the list of files, once."""
    pages = Pages()
    return [*(web.get(f"/{path}", pages.top) for path in _ON_TOP), web.get("/static/{name}", pages.static)]
