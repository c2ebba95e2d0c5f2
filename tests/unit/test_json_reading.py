"""Large JSON is read in a thread that lets others run, and means what small JSON means."""

import asyncio
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core.json_reading import AT_ONCE, NoJson, parse, parse_in_turns, read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
TEXTS = st.builds(lambda value, plain: json.dumps(value, ensure_ascii=not plain).encode(), VALUES, st.booleans())


def outcome(reader: Any, text: bytes) -> Any:
    try:
        return reader(text)
    except NoJson as error:
        return type(error)


@settings(max_examples=50)
@given(TEXTS)
def test_both_readers_read_the_same(text: bytes) -> None:
    assert parse_in_turns(text) == parse(text) == orjson.loads(text)


@given(TEXTS, st.integers(0, 60), st.sampled_from([b"", b",", b"]", b"}", b'"', b":", b"\\ud83d", b"\xff", b"NaN"]))
def test_both_readers_refuse_the_same(text: bytes, at: int, damage: bytes) -> None:
    damaged = text[:at] + damage + text[at + 1 :]
    assert outcome(parse_in_turns, damaged) == outcome(parse, damaged)


@pytest.mark.parametrize("text", [b"[NaN]", b"[Infinity]", b'["\\ud800"]', b"[1]]", b"", b"\xff", b"\xef\xbb\xbf[]"])
async def test_what_is_no_json_is_refused_at_any_size(text: bytes) -> None:
    for size in (0, AT_ONCE):
        with pytest.raises(NoJson, match="no JSON"):
            await read_json(b" " * size + text)


@pytest.mark.parametrize("depth", [20_000, AT_ONCE])
async def test_what_is_nested_too_deep_is_refused_by_name(depth: int) -> None:
    with pytest.raises(NoJson, match="nested too deep"):
        await read_json(b"[" * depth + b"]" * depth)


async def test_loop_runs_while_a_large_text_is_read() -> None:
    pair = {"symbol": "BTCUSDT", "filters": [{"filterType": "LOT_SIZE", "stepSize": "0.00001000"}] * 8, "isSpot": True}
    text = orjson.dumps({"symbols": [pair] * 5000})
    reading = asyncio.create_task(read_json(text))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert await reading == orjson.loads(text)
    # Twice without it: before the thread, and when it is done.
    assert turns > 50
