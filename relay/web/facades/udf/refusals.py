"""How errors are said to charts and grids."""

import orjson
from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.protocol.fields import shown
from relay.web.access.access import TOKEN_IN_HEADER
from relay.web.facades.facade import without_token
from relay.web.problems import problem_of

JSON = "application/json"
_NEEDS_TOKEN = f"a valid token is needed: put it into the address, as in /t/TOKEN/udf, or {TOKEN_IN_HEADER}"


def answer_of(request: web.Request, error: Exception, known: str) -> web.Response:
    """Return an error in the form of the protocol: clients look at `s`, people at the status."""
    if isinstance(error, web.HTTPException):
        said = f"there is no {shown(without_token(request.path))}; use {known}"
        if isinstance(error, web.HTTPMethodNotAllowed):
            said = f"{shown(request.method)} is not allowed here; use GET"
        return _answer(error.status, said, {})
    plain = problem_of(error)
    wait = plain.headers.get("Retry-After")
    return _answer(plain.status, _detail(plain, error), {} if wait is None else {"Retry-After": wait})


def reason_of(error: Exception) -> str:
    """Return what a client is told of an error. What is unexpected is logged."""
    return _detail(problem_of(error), error)


def _detail(plain: web.Response, error: Exception) -> str:
    if isinstance(error, RequestError) and error.code is Code.UNAUTHORIZED:
        return _NEEDS_TOKEN
    return str(orjson.loads(plain.body if isinstance(plain.body, bytes) else b"{}").get("detail", ""))


def _answer(status: int, said: str, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps({"s": "error", "errmsg": said})
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)
