"""How errors are said to charts and grids."""

import orjson
from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.protocol.fields import shown
from relay.web.facades.facade import way_of_token, without_token
from relay.web.problems import problem_of

JSON = "application/json"
ROOT, WIDGETS = "/udf", "/widgets.json"


def answer_of(request: web.Request, error: Exception, known: str) -> web.Response:
    """Return an error in the form of the protocol: clients look at `s`, people at the status."""
    if isinstance(error, web.HTTPException):
        said = f"there is no {shown(without_token(request.path))}; use {known}"
        if isinstance(error, web.HTTPMethodNotAllowed):
            said = f"{shown(request.method)} is not allowed here; use GET"
        return _answer(error.status, said, {})
    plain = problem_of(error)
    wait = plain.headers.get("Retry-After")
    said = _detail(plain)
    if _is_without_token(error):
        said = f"a valid token is needed: {way_of_token(request, (ROOT, WIDGETS))}"
    return _answer(plain.status, said, {} if wait is None else {"Retry-After": wait})


def reason_of(error: Exception) -> str:
    """Return what a client is told of an error. What is unexpected is logged."""
    return _detail(problem_of(error))


def _is_without_token(error: Exception) -> bool:
    return isinstance(error, RequestError) and error.code is Code.UNAUTHORIZED


def _detail(plain: web.Response) -> str:
    return str(orjson.loads(plain.body if isinstance(plain.body, bytes) else b"{}").get("detail", ""))


def _answer(status: int, said: str, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps({"s": "error", "errmsg": said})
    return web.Response(status=status, body=body, content_type=JSON, headers=headers)
