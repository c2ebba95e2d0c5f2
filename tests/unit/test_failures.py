"""What clients read of a provider's failure, and what only the log has."""

import logging
from typing import Any

import pytest

from providers.twelve_data.answers import KeyRefused
from relay import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    RestAnswer,
    UnknownSymbol,
)
from relay.core.errors import Flooded, log_text
from relay.plugins.failure_judge import FailureJudge


def judge(*, has_key: bool = True) -> FailureJudge:
    return FailureJudge("venue", lambda text: text.replace("hush", "***"), lambda: has_key)


KINDS: list[Any] = [AuthenticationFailed, ProviderTimeout, ProviderUnavailable, UnknownSymbol, BadAnswer, Flooded]


@pytest.mark.parametrize("kind", KINDS)
def test_detail_is_for_the_log_alone_and_holds_no_secret(kind: Any) -> None:
    failure = judge().judged("relay_stream", kind("the venue is away", detail="10.0.0.7 said hush"))
    assert type(failure) is kind
    assert str(failure) == "the venue is away"
    assert log_text(failure) == "the venue is away (10.0.0.7 said ***)"
    assert log_text(kind("plain")) == "plain"


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_in_the_text_for_clients_are_moved_to_the_log(kind: Any) -> None:
    said = "HTTP 403 through the proxy http://10.0.0.7:3128: see https://venue.example/docs?key=hush, or ask"
    failure = judge().judged("relay_stream", kind(said, detail="blocked"))
    assert type(failure) is kind
    assert str(failure) == "HTTP 403 through the proxy: see …, or ask"
    assert log_text(failure) == f"{said.replace('hush', '***')} (blocked)"
    # Judged again, as where a stream was lost, it says the same.
    assert log_text(judge().judged("relay_stream", failure)) == log_text(failure)


def test_a_wait_is_kept_with_both_texts() -> None:
    failure = judge().judged("relay_stream", RateLimited("slow down at wss://a.example", 7.0, detail="IP 1.2.3.4"))
    assert isinstance(failure, RateLimited)
    assert (str(failure), failure.retry_after) == ("slow down at …", 7.0)
    assert log_text(failure) == "slow down at wss://a.example (IP 1.2.3.4)"


def test_a_refusal_without_a_key_keeps_its_detail() -> None:
    failure = judge(has_key=False).judged("relay_stream", AuthenticationFailed("refused", detail="by a firewall"))
    assert (type(failure), log_text(failure)) == (ProviderUnavailable, "refused (by a firewall)")


def test_detail_that_is_no_text_or_was_never_set_breaks_nothing() -> None:
    class Odd(ProviderError):
        def __init__(self) -> None:
            Exception.__init__(self, "odd")

    assert log_text(judge().judged("relay_stream", Odd())) == "odd"
    failure = judge().judged("relay_stream", BadAnswer("bad", detail={"hush": 1}))  # type: ignore[arg-type]
    assert log_text(failure) == "bad ({'***': 1})"


def test_what_history_keeps_from_clients_is_a_line_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    of_one = judge()
    for _ in range(5):
        of_one.judged("relay_candles", BadAnswer("error 500", detail="table 7 is locked"))
        of_one.judged("relay_candles", BadAnswer("nothing else to say"))
        # Any client may ask for what there is not.
        of_one.judged("relay_candles", UnknownSymbol("no such coin", detail="code 404"))
    assert caplog.messages == ["history of venue: error 500 (table 7 is locked)"]


def test_an_answer_of_rest_takes_both_texts() -> None:
    for status, kind in ((401, AuthenticationFailed), (429, RateLimited), (503, ProviderUnavailable), (400, BadAnswer)):
        error = RestAnswer(status, {}, None).error("too many", detail="IP 1.2.3.4")
        assert (type(error), str(error), error.detail) == (kind, f"HTTP {status}: too many", "IP 1.2.3.4")
    assert str(RestAnswer(500, {}, None).error()) == "HTTP 500"


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (401, AuthenticationFailed, "the key was refused"),
        (500, ProviderUnavailable, "error 500"),
        (400, BadAnswer, "error 400"),
    ],
)
def test_the_words_of_twelve_data_are_for_the_log(code: int, kind: Any, told: str) -> None:
    error = KeyRefused(code, "**apikey** is wrong, see https://twelvedata.com/pricing").error()
    assert (type(error), str(error)) == (kind, told)
    assert log_text(error) == f"{told} (**apikey** is wrong, see https://twelvedata.com/pricing)"
