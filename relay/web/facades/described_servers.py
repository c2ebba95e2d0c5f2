"""Where a facade is reached, for its OpenAPI and AsyncAPI documents: with a token in the path where one is needed."""

from relay.web.access.access import BELOW_TOKEN
from relay.web.contract.openapi import Document

_PATH = BELOW_TOKEN.replace("path_token", "token")
_TOKEN = {"default": "TOKEN", "description": "One of the relay's tokens."}


def openapi_servers(who: str, *, needs_token: bool) -> list[Document]:
    """Return the addresses of a relay below which the routes are; `who` cannot send a header, such as "charts"."""
    servers: list[Document] = [{"url": "../", "description": "this relay"}]
    if needs_token:
        about = f"this relay, for {who} that cannot send a header"
        servers.append({"url": f"..{_PATH}", "description": about, "variables": {"token": _TOKEN}})
    return servers


def asyncapi_server(host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> Document:
    """Return the server that clients reach at `host`, below the path `prefix`."""
    server: Document = {"host": host, "protocol": "wss" if is_secure else "ws", "description": "this relay"}
    if needs_token:
        return {**server, "pathname": f"{prefix}{_PATH}", "variables": {"token": _TOKEN}}
    return {**server, "pathname": prefix} if prefix else server
