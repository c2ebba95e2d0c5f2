"""What the clients say: of a closed set of words, each named in the README, the same in both languages."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from relay.client import (
    ClientError,
    Code,
    Confirmed,
    Failure,
    History,
    Message,
    Snapshot,
    State,
    StreamKey,
    StreamState,
)
from relay.core.model import Candle
from tests.support.served_files import STATIC

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
TYPES = (STATIC / "client.d.ts").read_text(encoding="utf-8")
BTC = StreamKey("BTCUSDT", "1m")
CANDLES = tuple(Candle(60 * number, 1, 2, 0, 1, 5) for number in range(3))


def rows_of(head: str) -> list[str]:
    """Return the first cells of the README's table with this head."""
    table = README.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    return [row.split("|")[1] for row in table.splitlines()[2:]]


def union_of(name: str) -> set[str]:
    return set(re.findall(r'"(\w+)"', TYPES.partition(f"export type {name} =")[2].partition(";")[0]))


def test_a_typo_in_a_state_is_a_type_error() -> None:
    assert get_type_hints(State)["status"] == StreamState
    assert set(get_args(get_type_hints(Confirmed)["action"])) == {"subscribe", "unsubscribe"}
    documented = {word for cell in rows_of("status | meaning") for word in re.findall(r"`(\w+)`", cell)}
    assert documented | {"connected"} == set(get_args(StreamState)) == union_of("Status")
    assert union_of("Code") == set(Code)


def test_readme_names_all_messages_and_all_errors_in_both_languages() -> None:
    messages = {kind.__name__ for kind in get_args(Message)}
    told = rows_of("Python | JavaScript | meaning")
    assert {cell.strip(" `") for cell in told} == messages
    assert {name for name in messages if f'type: "{name.lower()}"' in TYPES} == messages
    errors = {cell.strip(" `") for cell in rows_of("error | when")}
    assert errors == {kind.__name__ for kind in ClientError.__subclasses__()}
    # JavaScript has no pandas.
    of_javascript = errors - {"MissingPackage"} | {"ClientError"}
    assert of_javascript == set(re.findall(r"^export class (\w+) extends \w*Error", TYPES, re.MULTILINE))


@pytest.mark.parametrize("kind", [Snapshot, History])
@pytest.mark.parametrize(
    ("candles", "last_is_closed", "closed", "opened"),
    [
        (CANDLES, False, CANDLES[:2], CANDLES[2]),
        (CANDLES, True, CANDLES, None),
        ((), False, (), None),
        (CANDLES[:1], False, (), CANDLES[0]),
    ],
)
def test_candles_of_the_past_are_told_apart(
    kind: type, candles: tuple[Candle, ...], last_is_closed: bool, closed: tuple[Candle, ...], opened: Candle | None
) -> None:
    past: Snapshot | History
    if kind is Snapshot:
        past = Snapshot(BTC, candles, last_is_closed, True, None, {})
    else:
        past = History("BTCUSDT", "1m", candles, last_is_closed, {})
    assert (past.closed_candles, past.open_candle) == (closed, opened)


@pytest.mark.parametrize(("wire", "wait_s"), [({}, None), ({"retry_after": 7}, 7.0)])
def test_failure_says_when_to_come_back(wire: dict[str, object], wait_s: float | None) -> None:
    assert Failure("rate_limited", "slowly", BTC, True, wire).retry_after_s == wait_s
