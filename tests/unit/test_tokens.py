"""Tokens: their written forms, what opens the relay and what does not, and `relay token`."""

import hashlib
import re
import tomllib

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import main
from relay.config.tokens import Token, Tokens, hashed, new_token, parse_tokens
from relay.core.secret import Secret

QUOTES = "\"'`“”„‘’«»"
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: word == word.strip(QUOTES).strip() and word.isprintable() and not word.startswith("sha256:")
)


def name_of(tokens: Tokens, offered: str) -> str | None:
    token = tokens.match(offered.encode())
    return None if token is None else token.name


def test_each_token_is_known_by_its_name() -> None:
    tokens = parse_tokens({"alice": "one", "bob": hashed(Secret("two")), "carol": " three "})
    assert {word: name_of(tokens, word) for word in ("one", "two", "three")} == {
        "one": "alice",
        "two": "bob",
        "three": "carol",
    }


@pytest.mark.parametrize("written", ['"one"', "'one'", "`one`", '"one', "one'", '"', "' '", "“one”", "„one“"])
def test_a_token_in_quotation_marks_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(ValueError, match="alice: it begins or ends with a quotation mark") as complaint:
        parse_tokens({"alice": written})
    assert "one" not in str(complaint.value)
    with pytest.raises(ValueError, match="quotation mark"):
        parse_tokens('"one,two"')


@pytest.mark.parametrize("written", ["one\ntwo", "one\ttwo", "\ufeffone", "one\u200b", "o\x00ne"])
def test_a_token_with_a_character_that_nobody_sees_is_refused_and_not_repeated(written: str) -> None:
    with pytest.raises(ValueError, match="alice: it holds a line end, a tab or another character") as complaint:
        parse_tokens({"alice": written})
    assert "one" not in str(complaint.value)


def test_tokens_of_a_file_may_stand_on_lines_of_their_own() -> None:
    tokens = parse_tokens("one\r\ntwo,three\n\n")
    assert [name_of(tokens, word) for word in ("one", "two", "three")] == ["token 1", "token 2", "token 3"]


@pytest.mark.parametrize("written", ["alice=opensesame", "first,bob = opensesame", "alice=sha256:00"])
def test_a_name_in_a_list_is_refused_and_no_part_of_the_token(written: str) -> None:
    with pytest.raises(ValueError, match=r"^contains NAME=TOKEN; names are possible only in the table") as caught:
        parse_tokens(written)
    assert "opensesame" not in str(caught.value)
    assert name_of(parse_tokens("b3BlbnNlc2FtZQ=="), "b3BlbnNlc2FtZQ==") == "token 1"


def test_short_tokens_are_known_as_such_and_hashed_ones_never() -> None:
    tokens = parse_tokens({"alice": "x" * 15, "bob": "x" * 16, "carol": hashed(Secret("short"))})
    assert [(token.name, token.is_short) for token in tokens] == [("alice", True), ("bob", False), ("carol", False)]


@pytest.mark.parametrize("offered", ["", "on", "ones", "ONE", " one", "alice", "two", "sha256:"])
def test_what_is_not_a_token_opens_nothing(offered: str) -> None:
    assert name_of(parse_tokens({"alice": "one"}), offered) is None


def test_hash_is_plain_sha256_and_does_not_open_by_itself() -> None:
    written = "sha256:" + hashlib.sha256(b"opensesame").hexdigest()
    assert hashed(Secret("opensesame")) == written
    tokens = parse_tokens([written])
    assert name_of(tokens, "opensesame") == "token 1"
    assert name_of(tokens, written) is None
    assert name_of(parse_tokens([f"sha256:{written[7:].upper()}"]), "opensesame") == "token 1"


@given(st.lists(WORDS, min_size=1, max_size=8, unique=True), WORDS, st.data())
def test_exactly_the_listed_words_open_as_given_or_hashed(words: list[str], other: str, data: st.DataObject) -> None:
    written = [word if data.draw(st.booleans()) else hashed(Secret(word)) for word in words]
    tokens = parse_tokens(written)
    for number, word in enumerate(words, 1):
        assert name_of(tokens, word) == f"token {number}"
    assert (name_of(tokens, other) is not None) == (other in words)


def test_all_tokens_are_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    tokens = parse_tokens(["one", "two", "three"])
    for offered in (b"one", b"three", b"none of them"):
        compared.clear()
        tokens.match(offered)
        assert compared == [token.digest for token in tokens]


def test_a_client_stands_while_its_token_does_whatever_it_is_called() -> None:
    before = parse_tokens({"alice": "one", "bob": "two"})
    alice, bob = before.match(b"one"), before.match(b"two")
    after = parse_tokens({"alicia": hashed(Secret("one")), "bob": "changed"})
    assert after.still_has(alice)
    assert not after.still_has(bob)
    assert not after.still_has(None)
    # A relay that had no tokens: who is connected came without one.
    assert Tokens().still_has(None)


def test_nothing_printed_of_tokens_opens_anything() -> None:
    tokens = parse_tokens({"alice": "opensesame"})
    for shown in (repr(tokens), str(tokens), repr(next(iter(tokens))), str(next(iter(tokens)))):
        assert "alice" in shown
        assert "opensesame" not in shown
        assert next(iter(tokens)).digest.hex()[:8] not in shown
    assert repr(Token("bob", b"secret")) == "Token('bob', ***)"


def test_new_tokens_have_256_random_bits_and_need_no_quotes() -> None:
    tokens = {new_token().reveal() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"relay_[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_relay_token_prints_a_pair_ready_to_paste() -> None:
    result = CliRunner().invoke(main, ["token"])
    assert result.exit_code == 0
    token, digest = result.output.splitlines()
    for line in (token, digest):
        pasted = tomllib.loads(f'[tokens]\nalice = "{line}"')
        assert name_of(parse_tokens(pasted["tokens"]), token) == "alice"
    assert name_of(parse_tokens(f"{digest},"), token) == "token 1"
    assert name_of(parse_tokens(token), token) == "token 1"
