"""Both clients play the same scenarios against a scripted relay, so that both are held to one law.

`data/client_scenarios.json` holds them: a name, the options of the client, and steps. A step has one key:

- `connects`: a connection comes, and is greeted with these fields. `handshake`: the status of the next ones, null if
  they are not answered. With several `relays` both name one by `at`, from 0, as `lists` does; what follows is played
  with the one that was connected to last.
- `lists`: the answer to requests for symbols from now on, a status and a body; null if they are not answered.
- `has`: the answer to requests for history from now on, a status and a body, of which `times` are the candles;
  `late`: once the time is over in which a request lets it wait.
- `queries`: the next request for history, whole.
- `call`: a method, its arguments; with `throws`, the name and a part of the message of what it throws, with `returns`
  what it returns.
- `asks`: the next request, whole but for its id, which `as` gives a name.
- `says`: what the relay sends; `wire_of` explains the short forms. `padding` makes it larger by so many characters.
- `tells`: all that the client tells next, in order; of each message the fields that are named.
- `fails`: the iteration ends with this error. `gives_up`: a reader waits for a moment, in vain.
- `closes`, `cuts`: the relay ends the connection. `is_left`: the client does.
- `streams`: what the client says that it follows.

With `"reads": "singly"` a message is read only when it is to be told.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from relay.client import (
    ClientError,
    Confirmed,
    Connected,
    Failure,
    Gap,
    Lost,
    Message,
    Outdated,
    RelayClient,
    Snapshot,
    State,
    Update,
)
from relay.core.model import EXTRA_FIELDS
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.javascript_client import JsClient, StartClient, start_client
from tests.support.scripted_relay import Json, ScriptedRelay, scripted

__all__ = ["start_client"]

SCENARIOS: list[Json] = json.loads((Path(__file__).parents[1] / "data" / "client_scenarios.json").read_text())
QUICK = {"backoffMs": [10, 50]}
SETTLE_S = 0.05


class Thrown(Exception):
    """What a client threw: the name of its class, its message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class Player(Protocol):
    """A client under test. Messages are told as JavaScript has them; what it throws is `Thrown`."""

    async def call(self, name: str, args: list[Any]) -> Any:
        """Call a method, or read a property."""

    async def read(self) -> Json:
        """Return the next message."""

    async def give_up(self) -> None:
        """Wait for a message for a moment, in vain."""


# -- Python ---------------------------------------------------------------------------------------------------------


class PythonPlayer:
    def __init__(self, client: RelayClient, *, reads_singly: bool) -> None:
        self._client = client
        self._told: asyncio.Queue[Json | Thrown] = asyncio.Queue()
        self.reading = None if reads_singly else asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        try:
            async for message in self._client:
                self._told.put_nowait(as_in_javascript(message))
        except ClientError as fault:
            self._told.put_nowait(Thrown(type(fault).__name__, str(fault)))

    async def read(self) -> Json:
        if self.reading is None:
            with thrown():
                return as_in_javascript(await anext(self._client))
        told = await self._told.get()
        if isinstance(told, Thrown):
            raise told
        return told

    async def give_up(self) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(self._client), 0.05)

    async def call(self, name: str, args: list[Any]) -> Any:
        with thrown():
            match name, args:
                case "new", [url, options]:
                    return RelayClient(url, **in_python(options))
                case (("subscribe" | "unsubscribe"), [names, *options]):
                    names = names if isinstance(names, list) else [names]
                    keywords = in_python(options[0]) if options else {}
                    return await getattr(self._client, name)(*names, **keywords)
                case "history", [symbol, interval, options]:
                    found = await self._client.history(symbol, interval, **in_python(options))
                    return {"times": [candle.time for candle in found.candles], "isComplete": found.is_complete}
                case "streams", []:
                    return [str(key) for key in self._client.streams]
                case _:
                    return await getattr(self._client, name)(*args)


@contextlib.contextmanager
def thrown() -> Any:
    try:
        yield
    except ClientError as fault:
        raise Thrown(type(fault).__name__, str(fault)) from fault


def in_python(options: Json) -> Json:
    """Return options of JavaScript under the names, and in the units, of Python."""
    found: Json = {}
    for name, value in options.items():
        if isinstance(value, dict) and "$number" in value:
            value = float(value["$number"])
        snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
        if name in {"backoffMs", "timeoutMs"}:
            snake = snake.removesuffix("_ms") + "_s"
            if isinstance(value, list) and all(isinstance(one, int | float) for one in value):
                value = tuple(one / 1000 for one in value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                value = value / 1000
        found[snake] = value
    return found


def as_in_javascript(message: Message) -> Json:
    stream = {} if getattr(message, "key", None) is None else {"stream": str(message.key)}  # type: ignore[union-attr]
    match message:
        case Connected():
            return {"type": "connected", "epoch": message.epoch, "serverTime": message.server_time}
        case Lost():
            retry = {"retryInMs": round(1000 * message.retry_in_s)}
            return {"type": "lost", "reason": message.reason, "closeCode": message.close_code, **retry}
        case Confirmed():
            return {"type": "confirmed", **stream, "action": message.action, "provider": message.provider}
        case State():
            return {"type": "state", **stream, "status": message.status, "text": message.message}
        case Snapshot():
            times = [candle.time for candle in message.candles]
            fields = {"lastIsClosed": message.last_is_closed, "isComplete": message.is_complete}
            fields |= {"isRenewed": message.is_renewed, "isPending": message.is_pending}
            return {"type": "snapshot", **stream, "times": times, **fields}
        case Update():
            extras = None if message.candle.extras is None else [*message.candle.extras[:4]]
            candle = {"at": message.candle.time, "close": message.candle.close, "isClosed": message.is_closed}
            marks = {"isBackfilled": message.is_backfilled, "isRevised": message.is_revised}
            return {"type": "update", **stream, **candle, **marks, "extras": extras}
        case Gap():
            return {"type": "gap", **stream, "from": message.start, "to": message.end, "reason": message.reason}
        case Outdated():
            return {"type": "outdated", **stream, "before": message.before}
        case Failure():
            wait_ms = None if message.retry_after_s is None else round(1000 * message.retry_after_s)
            code = {"code": message.code, "retryAfterMs": wait_ms}
            return {"type": "failure", **stream, **code, "isRetried": message.is_retried}


# -- JavaScript -----------------------------------------------------------------------------------------------------


class JsPlayer:
    def __init__(self, client: JsClient, *, reads_singly: bool) -> None:
        self._client = client
        self._reads_singly = reads_singly
        self._told: asyncio.Queue[Json] = asyncio.Queue()
        self._results: asyncio.Queue[Json] = asyncio.Queue()
        self.reading = asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        while said := await self._client.read_line():
            (self._told if "message" in said or said.get("isOfLoop") else self._results).put_nowait(said)

    async def read(self) -> Json:
        if self._reads_singly:
            return summary(json_of((await self.call("next", []))["value"]))
        return summary(json_of(_checked(await self._told.get())["message"]))

    async def give_up(self) -> None:
        with pytest.raises(Thrown, match="TimeoutError"):
            await self.call("nextWithin", [50])

    async def call(self, name: str, args: list[Any]) -> Any:
        await self._client.start(name, *args)
        result = _checked(await self._results.get()).get("result")
        if name == "history":
            found = json_of(result)
            return {"times": [candle["time"] for candle in found["candles"]], "isComplete": found["isComplete"]}
        return result


def _checked(said: Json) -> Json:
    if "fault" in said:
        raise Thrown(said["fault"]["name"], said["fault"]["message"])
    return said


def json_of(value: Any) -> Json:
    assert isinstance(value, dict)
    return value


def summary(message: Json) -> Json:
    """Return a message with the parts of its candles that scenarios name."""
    if message["type"] == "snapshot":
        return message | {"times": [candle["time"] for candle in message["candles"]]}
    if message["type"] == "update":
        candle = message["candle"]
        names = ("quoteVolume", "trades", "takerVolume", "takerQuoteVolume")
        extras = [candle[name] for name in names] if "trades" in candle else None
        return message | {"at": candle["time"], "close": candle["close"], "extras": extras}
    return message


# -- the play -------------------------------------------------------------------------------------------------------


def wire_of(said: Json, ids: dict[str, int]) -> str:
    """Return the text of a message. The first key names it, and the stream: `{"update": "BTCUSDT@1m", "at": 60000}`."""
    kind, name = next(iter(said.items()))
    rest = {field: value for field, value in said.items() if field != kind}
    if kind == "text":
        return str(name)
    wire: Json = {}
    if name is not None:
        symbol, _, interval = name.rpartition("@")
        wire = {"symbol": symbol, "interval": interval}
    if "id" in rest:
        rest["id"] = ids[rest["id"]]
    match kind:
        case "confirm":
            wire |= {"type": "subscription", "action": "subscribe", "status": "ok"}
        case "refuse":
            wire |= {"type": "error", "message": "no"}
        case "state":
            wire["type"] = "status"
        case "update":
            candle = candle_at(rest.pop("at"), rest.pop("close", 1.5), rest.pop("extras", None))
            wire |= {"type": "price_update", "candle": candle, "is_closed": rest.pop("closed", False)}
            wire |= {"seq": 1, "ts_event": None}
        case "snapshot":
            times = rest.pop("times")
            wire |= {"type": "snapshot", "candles": [candle_at(time) for time in times], "last_is_closed": False}
            wire |= {"complete": True, "seq": 1}
            if "revised" in rest:
                wire["revised"] = [candle_at(*one) for one in rest.pop("revised")]
        case _:
            wire["type"] = kind
    if "padding" in rest:
        rest["padding"] = "x" * rest["padding"]
    return json.dumps(wire | rest)


def history_of(body: Json) -> Json:
    rest = dict(body)
    candles = [candle_at(time) for time in rest.pop("times", ())]
    return {"candles": candles, "last_is_closed": True} | rest


def candle_at(time: int, close: float = 1.5, extras: list[float | None] | None = None) -> Json:
    plain = {"time": time, "open": 1.0, "high": 9.0, "low": 0.5, "close": close, "volume": 2.0}
    return plain if extras is None else plain | dict(zip(EXTRA_FIELDS, extras, strict=True))


async def play(steps: list[Json], relays: list[ScriptedRelay], player: Player) -> None:
    ids: dict[str, int] = {}
    relay = relays[0]
    for number, step in enumerate(steps):
        where = f"step {number}: {json.dumps(step)}"
        async with asyncio.timeout(LONGEST_WAIT_S):
            match step:
                case {"connects": fields}:
                    relay = relays[step.get("at", 0)]
                    await relay.take_connection()
                    hello = {"type": "status", "status": "connected", "epoch": "e1", "server_time": 60_200}
                    await relay.say(json.dumps(hello | fields))
                case {"handshake": status}:
                    relays[step.get("at", 0)].handshake = status
                case {"call": [name, *args], "throws": fault}:
                    with pytest.raises(Thrown) as caught:
                        await player.call(name, args)
                    assert (caught.value.name, fault["match"] in str(caught.value)) == (fault["name"], True), (
                        where,
                        str(caught.value),
                    )
                case {"lists": answer}:
                    relays[step.get("at", 0)].symbols = answer
                case {"has": [status, body]}:
                    relay.history = (status, history_of(body))
                    relay.uses_wait = step.get("late", False)
                case {"queries": expected}:
                    assert await relay.queries.get() == expected, where
                case {"call": [name, *args], "returns": expected}:
                    assert await player.call(name, args) == expected, where
                case {"call": [name, *args]}:
                    await player.call(name, args)
                case {"asks": expected}:
                    request = await relay.requests.get()
                    ids[step.get("as", "")] = request.pop("id")
                    assert request == expected, where
                case {"says": said}:
                    for one in said if isinstance(said, list) else [said]:
                        await relay.say(wire_of(one, ids))
                case {"tells": expected}:
                    for one in expected:
                        told = await player.read()
                        wanted = {"type": one} if isinstance(one, str) else one
                        assert {field: told.get(field, "none") for field in wanted} == wanted, (where, told)
                case {"fails": fault}:
                    with pytest.raises(Thrown) as caught:
                        await player.read()
                    assert (caught.value.name, fault["match"] in str(caught.value)) == (fault["name"], True), where
                case {"gives_up": _}:
                    await player.give_up()
                case {"closes": code}:
                    await relay.close(code, step.get("reason", ""))
                case {"cuts": _}:
                    await relay.cut()
                case {"is_left": _}:
                    await relay.until_ended()
                case {"streams": names}:
                    assert await player.call("streams", []) == names, where
                case _:
                    pytest.fail(f"nobody knows {where}")
    # What a client does by itself about the last message is done when it answers, and may still be on its way.
    with contextlib.suppress(Thrown):
        await player.call("streams", [])
    await asyncio.sleep(SETTLE_S)
    for relay in relays:
        assert relay.requests.empty(), f"asked beyond the scenario: {relay.requests.get_nowait()}"
        assert relay.queries.empty(), f"asked beyond the scenario: {relay.queries.get_nowait()}"


@pytest.fixture(params=[pytest.param(one, id=one["name"].replace(" ", "-")) for one in SCENARIOS])
def scenario(request: pytest.FixtureRequest) -> Json:
    found: Json = request.param
    return found


@pytest.fixture
async def relays(scenario: Json) -> AsyncIterator[list[ScriptedRelay]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(scripted()) for _ in range(scenario.get("relays", 1))]


def addresses(relays: list[ScriptedRelay]) -> str | list[str]:
    return relays[0].url if len(relays) == 1 else [relay.url for relay in relays]


async def test_python_client_plays(relays: list[ScriptedRelay], scenario: Json) -> None:
    options = in_python(QUICK | scenario.get("options", {}))
    async with RelayClient(addresses(relays), **options) as client:
        player = PythonPlayer(client, reads_singly=scenario.get("reads") == "singly")
        try:
            await play(scenario["steps"], relays, player)
        finally:
            if player.reading is not None:
                player.reading.cancel()


async def test_javascript_client_plays(relays: list[ScriptedRelay], start_client: StartClient, scenario: Json) -> None:
    reads_singly = scenario.get("reads") == "singly"
    options = QUICK | scenario.get("options", {})
    client = await start_client(addresses(relays), iterates=not reads_singly, **options)
    player = JsPlayer(client, reads_singly=reads_singly)
    try:
        await play(scenario["steps"], relays, player)
    finally:
        player.reading.cancel()
