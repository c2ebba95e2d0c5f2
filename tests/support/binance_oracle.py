"""What the simulated Binance answers, asked without a socket: its rules, with no weight of its own."""

from typing import NamedTuple

import orjson
from aiohttp.test_utils import make_mocked_request

from tests.support.sandbox import Sandbox
from tests.support.sandbox.binance import PlayedRest
from tests.support.sandbox.binance_usdm import PlayedUsdmRest


class OracleAnswer(NamedTuple):
    """Status and body; None for an empty one."""

    status: int
    body: object


class BinanceOracle:
    """Answers REST requests by the market and the clock of a sandbox, of spot or of its `futures`."""

    def __init__(self, sandbox: Sandbox, *, futures: bool = False) -> None:
        exchange, kind = (sandbox.futures, PlayedUsdmRest) if futures else (sandbox.binance, PlayedRest)
        # Each request is made from this one: what it stands on is built of mocks, which takes longer than the answer.
        self._request = make_mocked_request("GET", "/")
        self.rest = kind(exchange.market, exchange.clock, weight_limit=10**12, ban_after=10, ban_s=60.0)

    def ask(self, path: str, **headers: str) -> OracleAnswer:
        """Return what the exchange answers to a GET."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = self.rest.answer(self._request.clone(rel_url=path, headers=sent))
        assert answer.body is None or isinstance(answer.body, bytes)
        return OracleAnswer(answer.status, orjson.loads(answer.body) if answer.body else None)
