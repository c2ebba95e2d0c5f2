"""The tools of an assistant: what each says of itself, takes and does, and what is wrong with an argument."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson

from relay.client import BadArgument
from relay.commands.assistant_tools import MOST_CANDLES, MOST_INSTRUMENTS, MOST_LATEST, AssistantTools, ToolAnswer
from relay.core.errors import Code, RequestError
from relay.protocol.fields import LONGEST_SEARCH, Field, IntervalText, Moment, Schema, Text, Whole, parse_date, shown


class _Count(Whole):
    """A whole number, also as a text or as 5.0: some assistants write values so."""

    __slots__ = ()

    def of_json(self, name: str, value: object) -> int:
        """Take a number or its digits."""
        return self.of_text(name, value.strip()) if isinstance(value, str) else super().of_json(name, _plain(value))


def _plain(value: object) -> object:
    """Return a whole number as one: to JSON Schema 5.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_MOMENT = Moment()


class _WrittenTime:
    """A time as RFC 3339 writes it, a date, or Unix seconds."""

    __slots__ = ()

    def of_json(self, name: str, value: object) -> int | None:
        """Take any of them; a text of nothing is no time."""
        if not isinstance(value, str):
            return _MOMENT.of_json(name, _plain(value))
        text = value.strip()
        if not text:
            return None
        found = parse_date(text)
        if found is None and not text.isdecimal():
            said = f"{name} {shown(text)} is not a time; write 2025-11-24T16:00:00Z, 2025-11-24 or Unix seconds"
            raise RequestError(Code.INVALID_REQUEST, said)
        return _MOMENT.of_text(name, text) if found is None else _MOMENT.of_json(name, found)

    def schema(self) -> Schema:
        """Say both types."""
        return {"type": ["string", "integer", "null"]}


class _Symbols:
    """A list of symbols, so many at most."""

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        self.most = most

    def of_json(self, name: str, value: object) -> list[str]:
        """Take a list of texts, also written as JSON in a text."""
        given = value
        if isinstance(given, str) and given.lstrip().startswith("["):
            try:
                given = orjson.loads(given)
            except orjson.JSONDecodeError:
                given = value
        if not isinstance(given, list) or not all(isinstance(one, str) and one for one in given):
            said = f'{name} {shown(value)} is not a list of symbols such as ["BTCUSDT","EUR/USD"]'
            raise RequestError(Code.INVALID_REQUEST, said)
        if not 1 <= len(given) <= self.most:
            said = f"{name} has {len(given)} entries; give 1 to {self.most}"
            raise RequestError(Code.INVALID_REQUEST, said)
        return given

    def schema(self) -> Schema:
        """Say how long the list may be."""
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": self.most}


class _Words(Text):
    """What is searched for."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__({"type": "string", "maxLength": LONGEST_SEARCH}, "bitcoin usdt")

    def of_json(self, name: str, value: object) -> str:
        """Take any text that is not too long."""
        text = super().of_json(name, value)
        if len(text) > LONGEST_SEARCH:
            said = f"{name} {shown(text)} has {len(text)} characters; use at most {LONGEST_SEARCH}"
            raise RequestError(Code.INVALID_REQUEST, said)
        return text


_SYMBOL = Field("symbol", Text({"type": "string"}, "BTCUSDT"), "As its provider spells it.", example="BTCUSDT")
_INTERVAL = Field("interval", IntervalText(), "The length of the candles.", example="1h")


class Tool(NamedTuple):
    """One tool. `call` is the method that answers, with the arguments that were given."""

    name: str
    description: str
    call: Callable[..., Awaitable[ToolAnswer]]
    needed: tuple[Field[Any], ...] = ()
    others: tuple[Field[Any], ...] = ()

    def schema(self) -> Schema:
        """Describe what it takes, as JSON Schema."""
        fields = (*self.needed, *self.others)
        return {
            "type": "object",
            "properties": {one.name: {**one.kind.schema(), "description": one.description} for one in fields},
            "required": [one.name for one in self.needed],
            "additionalProperties": False,
        }

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call that are there. Raises `RequestError`."""
        given, fields = dict(arguments), (*self.needed, *self.others)
        names = [one.name for one in fields]
        for name in given:
            if name not in names:
                takes = f"it takes {', '.join(names)}" if names else "it takes none"
                raise RequestError(Code.INVALID_REQUEST, f"{self.name} has no argument {shown(name)}; {takes}")
        found = {one.name: one.need(given) for one in self.needed}
        found |= {one.name: one.read(given) for one in self.others}
        return {name: value for name, value in found.items() if value is not None}


TOOLS = (
    Tool(
        "search_instruments",
        "Find instruments by words in symbol, name, base or quote, the best first; `provider:SYMBOL` finds one. "
        f"limit: 1 to {MOST_INSTRUMENTS}.",
        AssistantTools.search_instruments,
        (Field("query", _Words(), "Words, or a symbol.", example="bitcoin usdt"),),
        (Field("limit", _Count(1, MOST_INSTRUMENTS), "How many at most; 20 if left out."),),
    ),
    Tool(
        "candles",
        "Open, high, low, close and volume of one symbol at one interval, oldest first. Without start the last ones up "
        "to end or now; with start the first ones from there on. start and end, both inclusive: 2025-11-24T16:00:00Z, "
        f"2025-11-24 or Unix seconds. limit: 1 to {MOST_CANDLES}.",
        AssistantTools.candles,
        (_SYMBOL, _INTERVAL),
        (
            Field("limit", _Count(1, MOST_CANDLES), "How many at most; 100 if left out."),
            Field("start", _WrittenTime(), "The first open time."),
            Field("end", _WrittenTime(), "The last open time."),
        ),
    ),
    Tool(
        "latest",
        f"The newest candle of each of up to {MOST_LATEST} symbols; its close is the newest price.",
        AssistantTools.latest,
        (Field("symbols", _Symbols(MOST_LATEST), "As their providers spell them.", example=["BTCUSDT"]),),
        (Field("interval", IntervalText(), "The length of the candles; 1m if left out."),),
    ),
    Tool(
        "state",
        "State of the relay and quality of its data: providers, their request budgets, the streams that clients follow "
        "and whether they are live, gaps, revisions, and how many candles differed from history.",
        AssistantTools.state,
    ),
)


async def answer(tools: AssistantTools, name: str, arguments: Mapping[str, Any]) -> ToolAnswer:
    """Call a tool by its name. Raises `ClientError`."""
    tool = next((one for one in TOOLS if one.name == name), None)
    if tool is None:
        raise BadArgument(f"there is no tool {shown(name)}; use one of {', '.join(one.name for one in TOOLS)}")
    try:
        given = tool.read(arguments)
    except RequestError as fault:
        raise BadArgument(fault.message) from None
    return await tool.call(tools, **given)
