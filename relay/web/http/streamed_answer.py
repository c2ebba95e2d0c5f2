"""Sends an answer part after part, as the client takes it; one that cannot be finished does not look whole."""

from collections.abc import AsyncGenerator

from aiohttp import web

from relay.core.errors import RelayError
from relay.network.reset import reset
from relay.web.http.cached_body import takes_gzip


async def send_parts(request: web.Request, content_type: str, parts: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Answer with the parts, compressed for who takes that; closes them.

    What the first one raises is raised, and nothing is sent. If a later one cannot be had, the connection is reset.
    """
    try:
        part = await anext(parts, None)
        answer = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-cache"})
        answer.headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            answer.enable_compression(web.ContentCoding.gzip)
        await answer.prepare(request)
        try:
            while part is not None:
                await answer.write(part)
                part = await anext(parts, None)
            await answer.write_eof()
        except (ConnectionError, RelayError):
            # The client left, or the rest cannot be had: then it must not take the half for the whole.
            if request.transport is not None:
                reset(request.transport)
        return answer
    finally:
        await parts.aclose()
