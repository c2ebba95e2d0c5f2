"""The lists of one provider, put together: what one answer lacks is not gone, and what is paused is not unknown."""

from relay.core.model import Instrument
from relay.instruments.listing import Listing

HOUR = 3600.0


def those(*symbols: str, status: str = "trading") -> list[Instrument]:
    return [Instrument(symbol, "crypto", symbol, "USDT", status=status) for symbol in symbols]


def many(count: int) -> list[str]:
    return [f"T{number:03d}" for number in range(count)]


def listing(*symbols: str, least: int = 1) -> Listing:
    made = Listing(least)
    made.take(those(*symbols), 0.0)
    return made


def test_a_symbol_is_gone_when_three_answers_in_a_row_are_without_it() -> None:
    listed = listing(*many(20))
    for number, expected in enumerate(("trading", "trading", "gone"), 1):
        listed.take(those(*many(19)), 60.0 * number)
        assert listed.standing("T019") == expected
        assert (listed.doubt == "") is (expected == "gone")
    listed.take(those(*many(20)), 600.0)
    assert listed.standing("T019") == "trading"


def test_a_symbol_that_is_back_before_was_never_gone() -> None:
    listed = listing(*many(20))
    for number in range(10):
        listed.take(those(*many(19 if number % 3 else 20)), 60.0 * number)
    assert listed.standing("T019") == "trading"


def test_an_answer_with_one_test_pair_takes_nothing_away_for_hours() -> None:
    listed = listing(*many(20))
    for number in range(100):
        listed.take(those("123456"), 60.0 * number)
        assert len(listed.instruments) == 21
        assert listed.doubt == "20 of 21 symbols are missing"
    listed.take(those(*many(20)), 2 * HOUR)
    assert listed.standing("T000") == "trading"


def test_much_that_stays_away_is_believed_in_the_end() -> None:
    listed = listing(*many(20))
    for number in range(8):
        listed.take(those("T000"), number * HOUR)
    assert list(listed.instruments) == ["T000"]
    assert listed.doubt == ""


def test_a_first_answer_that_is_too_short_lists_what_it_has_and_says_nothing_of_the_rest() -> None:
    listed = listing("123456", least=10)
    assert not listed.is_known
    assert listed.doubt == "it has 1 entries, fewer than 10"
    assert listed.standing("123456") == "trading"
    listed.take(those("123456", *many(10)), 10.0)
    assert (listed.is_known, listed.doubt) == (True, "")


def test_what_is_paused_keeps_its_place_and_is_asked_about_soon() -> None:
    listed = listing(*many(20))
    listed.take([*those(*many(19)), *those("T019", status="paused")], 10.0)
    assert listed.standing("T019") == "paused"
    assert listed.doubt == "1 symbol stopped trading"
    listed.take(those(*many(20)), 20.0)
    assert (listed.standing("T019"), listed.doubt) == ("trading", "")


def test_what_was_paused_at_the_start_is_no_doubt_unless_nothing_trades() -> None:
    listed = Listing(1)
    listed.take(those("AAA", "BBB", status="paused"), 0.0)
    assert listed.doubt == "none of its symbols is trading"
    listed.take([*those("AAA"), *those("BBB", status="paused")], 10.0)
    assert (listed.standing("BBB"), listed.doubt) == ("paused", "")


def test_the_list_of_an_earlier_run_counts() -> None:
    listed = Listing(10)
    listed.recall(those(*many(20)))
    assert listed.is_known
    listed.take(those("123456"), 0.0)
    assert listed.is_known
    assert listed.standing("T000") == "trading"


def test_a_list_of_test_pairs_is_not_the_whole_list_however_long_it_is() -> None:
    listed = Listing(10, ("BTCUSDT", "ETHUSDT", "BNBUSDT"))
    tests = [f"{number}456" for number in range(12)]
    listed.take(those(*tests), 0.0)
    assert (listed.is_known, listed.doubt) == (False, "it does not contain BNBUSDT, BTCUSDT, ETHUSDT")
    again = Listing(10, ("BTCUSDT", "ETHUSDT", "BNBUSDT"))
    again.recall(listed.instruments.values())
    assert not again.is_known
    # One may have left the venue for good.
    listed.take(those(*tests, "btcusdt", "ETHUSDT"), 60.0)
    assert (listed.is_known, listed.doubt) == (True, "")


def test_a_venue_that_really_has_other_symbols_is_believed_after_hours() -> None:
    listed = Listing(1, ("BTCUSDT",))
    for number in range(7):
        listed.take(those("AAA", "BBB"), number * HOUR)
        assert listed.is_known is (number == 6)


def test_answers_that_clients_cause_take_no_symbol_from_the_list() -> None:
    listed = Listing(1, (), HOUR)
    listed.take(those(*many(20)), 0.0)
    for second in range(0, 7200, 5):
        listed.take(those(*many(19)), HOUR + second)
        assert listed.standing("T019") == "trading"
        assert listed.doubt == "1 of 20 symbols are missing"
    listed.take(those(*many(19)), 3 * HOUR)
    assert listed.standing("T019") == "gone"


def test_a_symbol_that_is_seen_between_was_never_gone() -> None:
    listed = Listing(1, (), HOUR)
    for number in range(12):
        listed.take(those(*many(20 if number % 3 == 0 else 19)), number * HOUR)
        assert listed.standing("T019") == "trading"
