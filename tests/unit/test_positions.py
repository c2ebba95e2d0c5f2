"""Where a client is in its streams: written, read, bounded; and what is no such text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import RequestError
from relay.core.model import StreamKey
from relay.protocol.client_requests import MOST_STREAMS_PER_REQUEST
from relay.protocol.positions import LONGEST, SCHEMA, Position, ToldRevision, parse_position, tag_of, written

TAGS = [tag_of("binance", StreamKey(f"T{number}USDT", "1m")) for number in range(MOST_STREAMS_PER_REQUEST)]

REVISIONS = st.builds(ToldRevision, st.integers(0, 2**53), st.sampled_from(["", "0123456789abcdef"]))


@given(st.dictionaries(st.sampled_from(TAGS), st.integers(0, 16**9 - 1)), st.none() | REVISIONS)
def test_what_is_written_is_read(told_to: dict[str, int], revision: ToldRevision | None) -> None:
    assert parse_position(written(told_to.items(), revision).decode()) == Position(told_to, revision)


@given(st.from_regex(SCHEMA["pattern"], fullmatch=True).filter(lambda text: 0 < len(text) <= LONGEST))
def test_all_that_the_schema_allows_is_read(text: str) -> None:
    parse_position(text)


def test_the_position_in_all_streams_of_a_request_fits_a_header() -> None:
    assert len({*TAGS}) == len(TAGS)
    longest = written([(tag, 16**9 - 1) for tag in TAGS], ToldRevision(2**53, "f" * 16))
    assert len(longest) < LONGEST / 2
    parse_position(longest.decode())


def test_what_is_written_of_more_streams_than_a_client_can_have_is_read_with_the_first_ones() -> None:
    told_to = {tag_of("binance", StreamKey(f"T{number}USDT", "1m")): 16**9 - 1 for number in range(1000)}
    found = parse_position(written(told_to.items(), ToldRevision(2**53, "f" * 16)).decode())
    assert [*found.told_to] == [*told_to][: 2 * MOST_STREAMS_PER_REQUEST]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "2-1-",
        "1--x",
        "1-g.-",
        "1-1-",
        "1-1.-abcdef",
        "1-1.-abcdef1.abc",
        "1-1.-abcdefG",
        "1--abcdefffffffffff",
        "1-1.-" + "abcdef1." * 1000,
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="leave it out to begin again"):
        parse_position(text)
