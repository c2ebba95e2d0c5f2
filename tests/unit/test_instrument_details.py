"""What an instrument may say of itself: how it is judged, kept in little memory, stored and read again."""

import sys
from typing import Any

import orjson
import pytest

from relay.core.compact_instruments import compact
from relay.core.json_reading import AT_ONCE
from relay.core.model import Instrument, ProviderInfo
from relay.core.packed_extras import MOST_EACH, ExtrasTooLarge, PackedExtras, each_json, pack
from relay.core.session_text import fault_of_session
from relay.instruments.saved_list import read_rows, rows_of
from relay.plugins.validation import fault_of_instrument

INFO = ProviderInfo(name="demo", api=1, title="Demo", asset_classes=("demo",), intervals=("1m", "1h"))
WHOLE = Instrument(
    "ESZ6", "demo", "ES", "USD", ("1h",), "paused", "E-mini S&P 500", "0.25", "1", "contracts",
    "1700-1600 America/Chicago", 1_600_000_000, 1_800_000_000, {"venue": {"lot": 1, "tags": ["a", "b"]}},
)  # fmt: skip


def plain(**details: Any) -> Instrument:
    return Instrument("A", "demo", "A", "B")._replace(**details)


def test_an_instrument_of_a_plugin_that_knows_six_fields_is_whole() -> None:
    one = Instrument("A", "demo", "A", "B", None, "trading")
    assert fault_of_instrument(one, INFO) is None
    assert one[6:] == (None,) * 8


def test_an_instrument_that_says_everything_is_taken() -> None:
    assert fault_of_instrument(WHOLE, INFO) is None


@pytest.mark.parametrize(
    ("details", "fault"),
    [
        ({"name": ""}, "name is ''; give a text of at most 200 printable characters"),
        ({"name": 5}, "name is 5;"),
        ({"name": "A\x1b[0m"}, "name is"),
        ({"name": "x" * 201}, "at most 200"),
        ({"volume_unit": "y" * 33}, "volume_unit is"),
        ({"price_step": 0.01}, "price_step is 0.01; give a decimal number above zero as a text, such as '0.01'"),
        ({"price_step": "0"}, "price_step is '0'"),
        ({"price_step": "0.000"}, "price_step is '0.000'"),
        ({"price_step": "1e-8"}, "price_step is '1e-8'"),
        ({"price_step": "-1"}, "price_step is '-1'"),
        ({"price_step": ".5"}, "price_step is '.5'"),
        ({"price_step": "1\n"}, "price_step is"),
        ({"price_step": "١"}, "price_step is"),
        ({"volume_step": "9" * 31}, "volume_step is"),
        ({"session": 24}, "session 24 is not a text"),
        ({"session": "always"}, "session 'always' is not a session such as '24x7', '1700-1700 America/New_York'"),
        ({"listed_at": 1_764_000_000_000_000}, "listed_at is 1764000000000000; give whole Unix seconds"),
        ({"listed_at": 1.5}, "listed_at is 1.5;"),
        ({"expires_at": True}, "expires_at is True;"),
        ({"listed_at": 2, "expires_at": 2}, "expires_at 2 is not after listed_at 2"),
        ({"extras": [1]}, "extras is list, not a dict"),
        ({"extras": {"a": object()}}, "extras is not JSON"),
        ({"extras": {1: 2}}, "extras is not JSON"),
        ({"extras": {"a": "x" * MOST_EACH}}, f"extras has {MOST_EACH + 8:,} bytes as JSON; at most {MOST_EACH:,} are"),
        ({"status": "halted"}, "not 'trading' or 'paused'"),
        ({"base": "x" * 101}, "more than 100 characters"),
        ({"symbol": "A,B"}, "'A,B' is not a symbol; it has at most 48 letters"),
        ({"symbol": "demo@1m"}, "is not a symbol"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named_with_what_is_right(details: dict[str, Any], fault: str) -> None:
    said = fault_of_instrument(plain(**details), INFO)
    assert said is not None
    assert fault in said
    assert said.isprintable()
    if details.keys().isdisjoint({"symbol", "status", "base"}):
        assert said.startswith("A: ")


@pytest.mark.parametrize("symbol", ["^GSPC", "ES=F", "M&M.NS", "NQ1!", "BRK.B", "EUR/USD", "BTC/USDT:USDT", "X:BTCUSD"])
def test_symbols_of_venues_are_taken(symbol: str) -> None:
    assert fault_of_instrument(plain(symbol=symbol), INFO) is None


def test_a_listing_of_the_last_century_is_no_mistake() -> None:
    assert fault_of_instrument(plain(listed_at=-631_152_000), INFO) is None


@pytest.mark.parametrize(
    "text",
    ["24x7", "1700-1700 America/New_York", "1800-1700 America/New_York", "0930-1600 America/New_York",
     "0900-1130,1230-1530 Asia/Tokyo", "0000-2400 Etc/UTC", "1000-1800:1234567 Europe/Moscow", "0930-1600 UTC"],
)  # fmt: skip
def test_sessions_are_texts_as_charts_take_them(text: str) -> None:
    assert fault_of_session(text) is None


@pytest.mark.parametrize(
    "text",
    ["", "24X7", "24x7 UTC", "0930-1600", "930-1600 UTC", "0930-2500 UTC", "0960-1600 UTC", "2400-0100 UTC",
     "0930-1600  UTC", "0930-1600 Nowhere/City", "0930-1600 ../etc/passwd", "0930-1600 America", "0930-1600:8 UTC",
     "0930-1600 UTC\n", "0930–1600 UTC", "٠٩٣٠-1600 UTC"],
)  # fmt: skip
def test_other_texts_are_no_sessions(text: str) -> None:
    said = fault_of_session(text)
    assert said is not None
    assert "24x7" in said


@pytest.mark.parametrize(
    ("step", "plain_one"),
    [("0.01000000", "0.01"), ("1.00000000", "1"), ("10.00", "10"), ("100", "100"), ("0.5", "0.5"), (None, None)],
)
def test_steps_are_kept_without_zeros_at_their_ends(step: str | None, plain_one: str | None) -> None:
    (kept,) = compact([plain(price_step=step, volume_step=step)])
    assert (kept.price_step, kept.volume_step) == (plain_one, plain_one)


def test_what_is_kept_says_what_was_given() -> None:
    assert compact([WHOLE]) == [WHOLE]
    assert compact(compact([WHOLE])) == [WHOLE]


def test_equal_texts_of_many_instruments_are_one_object() -> None:
    texts = [orjson.loads(b'["demo","A","USD","24x7"]') for _ in range(3)]
    kept = compact(Instrument(f"S{number}", one[0], one[1], one[2], session=one[3]) for number, one in enumerate(texts))
    for field in ("asset_class", "base", "quote", "session"):
        assert len({id(getattr(one, field)) for one in kept}) == 1


def details_of_a_pair(number: int) -> dict[str, Any]:
    """What a venue says of one of many pairs that are much alike: some 1,600 bytes."""
    return {
        "symbol": f"C{number}USDT", "step": f"0.{number:08d}", "kinds": ["LIMIT", "LIMIT_MAKER", "MARKET"] * 20,
        "filters": [
            {"filterType": f"RULE_{one}", "least": f"{one}.{number:05d}", "most": "9000000.0"} for one in range(16)
        ],
    }  # fmt: skip


def test_extras_are_kept_in_a_tenth_of_their_text() -> None:
    given = [details_of_a_pair(number) for number in range(3000)]
    kept = pack(given)
    blocks = {id(one._block): sys.getsizeof(one._block) for one in kept}
    size = sum(blocks.values()) + sum(map(sys.getsizeof, kept))
    assert size < sum(len(orjson.dumps(one)) for one in given) / 10
    assert [orjson.loads(text) for text in each_json(kept)] == given
    assert (dict(kept[2999]), kept[7]["symbol"], len(kept[7])) == (given[2999], "C7USDT", 4)


def test_extras_are_equal_where_their_texts_are() -> None:
    one, other = pack([{"a": 1}, {"a": 1}])
    assert one == other
    assert hash(one) == hash(other)
    assert one == {"a": 1}
    assert one != pack([{"a": 2}])[0]
    # Packed in another list, beside others.
    assert pack([{"z": 1}, {"a": 1}])[1] == one


def test_extras_of_a_list_have_a_bound_together() -> None:
    with pytest.raises(ExtrasTooLarge, match="more than 67,108,864 bytes"):
        pack({"a": "x" * (MOST_EACH - 8)} for _ in range(4200))


def test_a_saved_list_keeps_everything_that_instruments_say() -> None:
    kept = compact([plain(), WHOLE, plain(symbol="C", extras={"a": "é\n"}), plain(symbol="D", expires_at=5)])
    body = rows_of(kept)
    again = read_rows(body, INFO)
    assert again == kept
    assert isinstance(again[1].extras, PackedExtras)
    assert orjson.loads(rows_of(kept * 400)) == orjson.loads(body) * 400
    assert read_rows(rows_of(kept * 400), INFO) == kept * 400
    # What is not known takes no room, so an earlier version reads the row as its own.
    assert orjson.loads(body)[0] == ["A", "demo", "A", "B", None, "trading"]


def test_a_list_saved_by_another_version_is_read() -> None:
    rows: list[list[Any]] = [
        ["OLD", "demo", "A", "B", ["1m"]],
        ["OLDER", "demo", "A", "B", None, "paused"],
        ["NEW", "demo", "A", "B", None, "trading", "Name", *[None] * 7, "a later field"],
    ]
    old, older, new = read_rows(orjson.dumps(rows), INFO)
    assert (old.intervals, old.status, old.session) == (("1m",), "trading", None)
    assert (older.status, new.name, len(new)) == ("paused", "Name", 14)


def test_a_long_list_of_an_earlier_version_is_one_part_and_read_as_well() -> None:
    rows = [[f"S{number}", "demo", "A", "B", ["1m", "1h"], "trading"] for number in range(8000)]
    body = orjson.dumps(rows)
    assert len(body) > AT_ONCE
    assert [one.symbol for one in read_rows(body, INFO)] == [row[0] for row in rows]


def test_rows_of_a_saved_list_that_make_no_sense_are_left_out() -> None:
    rows: list[list[Any]] = [["B", "demo", "A", "B", None, "trading", 7], ["C", "stars", "A", "B", None]]
    assert [one.symbol for one in read_rows(orjson.dumps([*rows, ["D", "demo", "A", "B", None]]), INFO)] == ["D"]
