"""What the conformance check can blame: a closed list of names, each with its meaning and where to look; pure."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from relay.core.model import Candle


class FaultName(StrEnum):
    """What can be wrong with a provider. The names stay the same when a sentence changes; the guide explains each."""

    NOT_LOADED = "not_loaded"
    INFO_CHANGES = "info_changes"
    WRONG_INSTRUMENTS = "wrong_instruments"
    INTERVAL_NOT_SERVED = "interval_not_served"
    WRONG_INTERVAL = "wrong_interval"
    INTERVALS_DISAGREE = "intervals_disagree"

    WRONG_TYPE = "wrong_type"
    UNSOUND_CANDLE = "unsound_candle"
    TIME_UNIT = "time_unit"
    WRONG_OPEN_TIME = "wrong_open_time"
    OPENS_IN_FUTURE = "opens_in_future"
    STAMP_UNIT = "stamp_unit"
    STAMP_OFF = "stamp_off"
    SKIPS_MESSAGES = "skips_messages"
    WRONG_VALUES = "wrong_values"

    NO_UPDATES = "no_updates"
    STREAM_FAILS = "stream_fails"
    STREAM_ENDS = "stream_ends"
    IGNORES_ADDED = "ignores_added"
    IGNORES_REMOVED = "ignores_removed"
    UNWANTED_STREAM = "unwanted_stream"
    UNKNOWN_SYMBOL = "unknown_symbol"

    CLOSES_EARLY = "closes_early"
    CLOSES_LATE = "closes_late"
    CLOSES_TWICE = "closes_twice"
    REOPENS = "reopens"
    GOES_BACK = "goes_back"
    NEVER_CLOSES = "never_closes"
    MISSES_CANDLES = "misses_candles"
    LIVE_PRICES_DIFFER = "live_prices_differ"
    LIVE_VOLUME_DIFFERS = "live_volume_differs"
    LIVE_TIME_DIFFERS = "live_time_differs"
    GRACE_TOO_SHORT = "grace_too_short"
    CHANGES_PAST = "changes_past"

    HISTORY_FAILS = "history_fails"
    TOO_FEW_CANDLES = "too_few_candles"
    NOT_IN_ORDER = "not_in_order"
    REPEATS_CANDLE = "repeats_candle"
    IGNORES_LIMIT = "ignores_limit"
    IGNORES_START = "ignores_start"
    INCLUDES_END = "includes_end"
    WRONG_RANGE = "wrong_range"
    STOPS_SHORT = "stops_short"
    HOLE_AT_SEAM = "hole_at_seam"
    HISTORY_CHANGES = "history_changes"
    LACKS_OPEN = "lacks_open"

    RECONNECTS_ITSELF = "reconnects_itself"
    HANGS_AFTER_LOSS = "hangs_after_loss"
    RETRIES_INSIDE = "retries_inside"
    HIDES_REFUSAL = "hides_refusal"
    WRONG_ERROR = "wrong_error"
    SWALLOWS_CANCELLATION = "swallows_cancellation"
    DOES_NOT_END = "does_not_end"
    LEFTOVERS = "leftovers"
    CLOSES_SESSION = "closes_session"
    BLOCKS_LOOP = "blocks_loop"
    TOO_SLOW = "too_slow"
    LEAKS_SECRET = "leaks_secret"
    HOOK_FAILS = "hook_fails"
    WRONG_BUDGET = "wrong_budget"


class _Advice(NamedTuple):
    """What a fault means, and where its author should look."""

    meaning: str
    look_at: str


ADVICE: dict[FaultName, _Advice] = {
    FaultName.NOT_LOADED: _Advice("a relay refuses the plugin", "relay_provider, and how the plugin is named"),
    FaultName.INFO_CHANGES: _Advice("relay_provider returns another value when it is called again", "relay_provider"),
    FaultName.WRONG_INSTRUMENTS: _Advice(
        "the list of instruments has invalid entries, or lacks the symbol", "relay_instruments, relay_instrument"
    ),
    FaultName.INTERVAL_NOT_SERVED: _Advice(
        "an interval is declared and not served", "intervals of ProviderInfo and of each Instrument"
    ),
    FaultName.WRONG_INTERVAL: _Advice(
        "the candles of an interval are shorter than it", "the names that the venue has for intervals"
    ),
    FaultName.INTERVALS_DISAGREE: _Advice(
        "the candles of a longer interval are not made of those of a shorter one",
        "the names that the venue has for intervals, its time zone, the unit of its volume",
    ),
    FaultName.WRONG_TYPE: _Advice("a hook yields something else than PriceUpdate", "the values that are yielded"),
    FaultName.UNSOUND_CANDLE: _Advice(
        "the values of a candle contradict each other", "the order of the venue's columns"
    ),
    FaultName.TIME_UNIT: _Advice(
        "the time of a candle is not in seconds", "Candle.time: Unix seconds, not milliseconds"
    ),
    FaultName.WRONG_OPEN_TIME: _Advice(
        "no candle of the interval opens at that time",
        "Candle.time: the open time in UTC, not the close time and not a local time; is_utc_grid",
    ),
    FaultName.OPENS_IN_FUTURE: _Advice(
        "a candle opens in the future", "Candle.time: the open time in UTC, not the close time and not a local time"
    ),
    FaultName.STAMP_UNIT: _Advice("ts_event_ms is not in milliseconds", "ts_event_ms of PriceUpdate"),
    FaultName.STAMP_OFF: _Advice(
        "ts_event_ms is another time than the venue's", "ts_event_ms: when the venue sent the update, in UTC"
    ),
    FaultName.SKIPS_MESSAGES: _Advice("messages of the venue cannot be read", "decode"),
    FaultName.WRONG_VALUES: _Advice(
        "candles differ from those that the test expects", "the columns, the unit of the volume, factors of prices"
    ),
    FaultName.NO_UPDATES: _Advice("a stream has no updates although there are trades", "subscribe and decode"),
    FaultName.STREAM_FAILS: _Advice("relay_stream raises", "relay_stream and decode"),
    FaultName.STREAM_ENDS: _Advice("relay_stream ends by itself while streams are wanted", "relay_stream"),
    FaultName.IGNORES_ADDED: _Advice(
        "a stream that is added to the watchlist later is not served",
        "watchlist.streams has to be read again and again",
    ),
    FaultName.IGNORES_REMOVED: _Advice(
        "a stream goes on after it was removed from the watchlist", "unsubscribe; watchlist.streams"
    ),
    FaultName.UNWANTED_STREAM: _Advice(
        "an update belongs to a stream that is not on the watchlist", "the StreamKey of updates: symbol and interval"
    ),
    FaultName.UNKNOWN_SYMBOL: _Advice(
        "a symbol that does not exist is answered wrongly", "watchlist.reject, Rejected, UnknownSymbol"
    ),
    FaultName.CLOSES_EARLY: _Advice(
        "a candle is closed before its interval ends",
        "is_closed: only if the venue says so or a newer candle exists; relay_hours for short sessions",
    ),
    FaultName.CLOSES_LATE: _Advice(
        "a candle is closed after the next one was sent", "close each candle before the next one is yielded"
    ),
    FaultName.CLOSES_TWICE: _Advice(
        "candles are closed, and again with other values", "is_closed: only final values are closed"
    ),
    FaultName.REOPENS: _Advice("a candle is open again after it was closed", "is_closed"),
    FaultName.GOES_BACK: _Advice("an open candle follows a newer one", "the order of updates; snapshots of the venue"),
    FaultName.NEVER_CLOSES: _Advice("candles are over and were never closed", "is_closed; CloseOnNext"),
    FaultName.MISSES_CANDLES: _Advice(
        "history has candles that the live stream left out", "messages that decode ignores"
    ),
    FaultName.LIVE_PRICES_DIFFER: _Advice(
        "prices of the live stream differ from history", "the columns of live messages and of history"
    ),
    FaultName.LIVE_VOLUME_DIFFERS: _Advice(
        "the volume of the live stream differs from history",
        "the unit of the volume (base, not quote), and that it is the candle's own",
    ),
    FaultName.LIVE_TIME_DIFFERS: _Advice(
        "candles of the live stream open at other times than in history",
        "the names that the venue has for intervals, the unit and the zone of times",
    ),
    FaultName.GRACE_TOO_SHORT: _Advice(
        "history has the final values later than close_grace_s after the close", "close_grace_s of ProviderInfo"
    ),
    FaultName.CHANGES_PAST: _Advice(
        "changes of the past are reported wrongly", "watchlist.invalidate, once for each change; relay_past_changes"
    ),
    FaultName.HISTORY_FAILS: _Advice("relay_candles raises", "relay_candles"),
    FaultName.TOO_FEW_CANDLES: _Advice("history is too short for the check", "another symbol, or relay_candles"),
    FaultName.NOT_IN_ORDER: _Advice("history is not oldest first", "the order of the venue's rows"),
    FaultName.REPEATS_CANDLE: _Advice("history has an open time twice", "where one page ends and the next one begins"),
    FaultName.IGNORES_LIMIT: _Advice("history returns more than `limit` candles", "`limit`"),
    FaultName.IGNORES_START: _Advice("history returns candles before `start`", "`start`, which is included"),
    FaultName.INCLUDES_END: _Advice("history returns candles at `end` or later", "`end`, which is not included"),
    FaultName.WRONG_RANGE: _Advice(
        "history returns other candles of the range", "with `start` the first `limit` candles, else the last `limit`"
    ),
    FaultName.STOPS_SHORT: _Advice(
        "history returns less than `limit` although there is more",
        "how many candles the venue gives at once, and when paging ends",
    ),
    FaultName.HOLE_AT_SEAM: _Advice("a long answer lacks candles", "where one page ends and the next one begins"),
    FaultName.HISTORY_CHANGES: _Advice("one closed candle has other values in another answer", "relay_candles"),
    FaultName.LACKS_OPEN: _Advice(
        "history up to now lacks the open candle", "the end of the range at the venue; history_has_open"
    ),
    FaultName.RECONNECTS_ITSELF: _Advice("the feed connects again by itself", "loops around the connection"),
    FaultName.HANGS_AFTER_LOSS: _Advice(
        "the feed neither ends nor raises after its connection was lost", "`except` around the connection"
    ),
    FaultName.RETRIES_INSIDE: _Advice("a hook tries again by itself", "loops around requests"),
    FaultName.HIDES_REFUSAL: _Advice("a refusal of the venue raises no error", "`except`, and the status of answers"),
    FaultName.WRONG_ERROR: _Advice("a refusal raises another error than it should", "RestAnswer.error, RateLimited"),
    FaultName.SWALLOWS_CANCELLATION: _Advice("CancelledError does not pass", "`except` and `return` in `finally`"),
    FaultName.DOES_NOT_END: _Advice(
        "a feed or call does not end in time after it was cancelled", "`except`, `finally`"
    ),
    FaultName.LEFTOVERS: _Advice("tasks or connections are left", "`async with`, TaskGroup"),
    FaultName.CLOSES_SESSION: _Advice("the session of the relay is closed", "`async with session`, session.close()"),
    FaultName.BLOCKS_LOOP: _Advice("the event loop is blocked", "asyncio.to_thread for what takes long"),
    FaultName.TOO_SLOW: _Advice("a message costs too much CPU", "decode"),
    FaultName.LEAKS_SECRET: _Advice("a secret shows in a text", "Secret.reveal(), log lines, texts of errors"),
    FaultName.HOOK_FAILS: _Advice("a hook raises something else than a ProviderError", "the log line"),
    FaultName.WRONG_BUDGET: _Advice("a budget is invalid, or takes long", "relay_budgets"),
}


class Finding(NamedTuple):
    """One fault: what was `seen`, what was `expected` instead, and an `example`; times are in UTC."""

    fault: FaultName
    seen: str
    expected: str = ""
    example: str = ""

    def __str__(self) -> str:
        advice = ADVICE[self.fault]
        lines = [f"{self.fault}: {advice.meaning}", f"  seen:     {self.seen}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.example:
            lines.append(f"  example:  {self.example}")
        return "\n".join([*lines, f"  look at:  {advice.look_at}"])

    def as_json(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {**self._asdict(), "fault": str(self.fault), **ADVICE[self.fault]._asdict()}


class DoesNotConform(AssertionError):
    """What a provider does differs from what providers/README.md promises the relay; `findings` are the faults."""

    def __init__(self, name: str, findings: Iterable[Finding], unchecked: Iterable[str] = ()) -> None:
        self.findings = tuple(findings)
        self.unchecked = tuple(unchecked)
        text = f"{name} does not conform:" + "".join(f"\n\n{finding}" for finding in self.findings)
        rest = "".join(f"\n- {what}" for what in self.unchecked)
        super().__init__(text + (f"\n\nnot checked:{rest}" if rest else ""))

    @property
    def faults(self) -> tuple[FaultName, ...]:
        """The names of the faults, each once."""
        return tuple(dict.fromkeys(finding.fault for finding in self.findings))


def fault_of_update(sentence: str) -> FaultName:
    """Return the name for what the relay itself says of an update."""
    if "not PriceUpdate" in sentence:
        return FaultName.WRONG_TYPE
    if "not on the watchlist" in sentence:
        return FaultName.UNWANTED_STREAM
    if "ts_event_ms" in sentence:
        return FaultName.STAMP_UNIT
    return fault_of_candle(sentence)


def fault_of_candle(sentence: str) -> FaultName:
    """Return the name for what the relay itself says of a candle."""
    if "Unix seconds" in sentence:
        return FaultName.TIME_UNIT
    if "not an open time" in sentence:
        return FaultName.WRONG_OPEN_TIME
    return FaultName.UNSOUND_CANDLE


def utc(moment: float) -> str:
    """Write a moment in Unix seconds to the second: `2026-11-22T20:14:09Z`."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{moment:g}"


def candle_text(candle: Candle) -> str:
    """Write a candle with its open time in UTC."""
    values = " ".join(f"{name} {value:g}" for name, value in zip("OHLCV", candle[1:6], strict=True))
    return f"{utc(candle.time)} {values}"
