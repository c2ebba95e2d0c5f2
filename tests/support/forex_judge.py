"""Judges what clients were told of days of Twelve Data: by the stand-in's own market and hours, not by the relay."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from providers.sandbox import Market

Message = dict[str, Any]
Values = tuple[float, float, float, float]
Times = tuple[float, float]

LENGTHS_S = {"1m": 60, "1h": 3600, "4h": 4 * 3600, "1d": 86_400}
HOUR_S = 3600
SETTLES_S = 180.0
"""After the market closed or opened, its state may be told so much later."""
CLOSES_WITHIN_S = {"poll": 3600.0, "stream": 600.0}
FIRST_PRICE_S = {"poll": 150.0, "stream": 20.0}
"""How soon after the opening the first price is there; a poll needs credits, and one minute of them may be spent."""
QUIET_S = 30.0
"""So long no tick may come while the market is open, or another attempt last."""
SILENT_S = 1800.0
"""So long after two candles should have come a stream without prices may still be called live."""
VALUES_WITHIN_S = {"free": 30 * 3600.0, "large": 5 * 3600.0}
"""So long after their end candles that the provider changed late have its values: as there are credits to spare."""
RECOVERS_S = 900.0
"""So long after a trouble the state may tell of it."""


class Plan(NamedTuple):
    """Credits in a minute and in a day."""

    per_minute: int
    per_day: int


PLANS = {"free": Plan(8, 800), "large": Plan(55, 1_000_000)}


class Scenario(NamedTuple):
    """What is run: `hours` from `start` on (Unix seconds).

    On `holidays` there are no prices although the market is open by the clock, nor on `bank_holidays`, which the relay
    knows. Without `leaves` nobody comes and goes. Half of the bars change so long after their end (`settles_s`).
    `ordeals` are names of `forex_troubles.ORDEALS`. With `is_new_york` candles of four hours begin with the day of the
    market, else by UTC. One that `is_tidy` answers at once and says everything once and in order. With `leaps` the
    middle of closed hours passes at once, as where a machine was suspended.
    """

    start: int
    hours: float
    mode: str
    plan: str
    holidays: tuple[Times, ...] = ()
    leaves: bool = True
    settles_s: float = 0.0
    ordeals: frozenset[str] = frozenset()
    is_new_york: bool = False
    is_tidy: bool = False
    bank_holidays: tuple[Times, ...] = ()
    leaps: bool = False

    @property
    def end(self) -> float:
        """When it is over."""
        return self.start + self.hours * HOUR_S

    @property
    def shares_credits(self) -> bool:
        """Whether others spend credits of the same key, and may spend all of a day's."""
        return "another program" in self.ordeals


class Trouble(NamedTuple):
    """What was wrong with the provider, from when to when.

    `allowed` are the states that are true meanwhile, None for any; a stream has to be in `required` after a while.
    """

    name: str
    start: float
    end: float
    allowed: frozenset[str] | None = None
    required: str = ""


def moment(text: str) -> int:
    """Return Unix seconds of a moment in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def shown(at: float) -> str:
    """Write a moment as people say it."""
    return datetime.fromtimestamp(at, UTC).strftime("%a %m-%d %H:%M:%S")


def market_day_hour(at: float) -> int:
    """Return the hour in UTC at which the day of the market begins: 17:00 in New York."""
    from providers.sandbox.listings import forex_break_hour

    return forex_break_hour(int(at) // 86_400)


class Told(NamedTuple):
    """A message and when it came."""

    at: float
    message: Message


# -- the judge -------------------------------------------------------------------------------------


class Truth:
    """What the stand-in's market did, of one stream."""

    def __init__(self, market: "Market", symbol: str, interval: str, *, is_new_york: bool = False) -> None:
        self._market = market
        self.symbol = symbol
        self._is_new_york = is_new_york and interval == "4h"
        self.length_s = LENGTHS_S[interval]
        self._scale = 10 ** market.pair(symbol).price_decimals

    def is_open(self, at: float) -> bool:
        """Say whether the market is open by the clock."""
        return self._market.is_open(self.symbol, int(at * 1000))

    def changes(self, start: float, end: float) -> Iterator[tuple[int, bool]]:
        """Yield when the market opens (True) and closes between two moments; it does so at full hours."""
        for at in range(int(start) // HOUR_S * HOUR_S, int(end) + 1, HOUR_S):
            if start < at <= end and self.is_open(at) != self.is_open(at - 1):
                yield at, self.is_open(at)

    def exists(self, opened: int) -> bool:
        """Say whether there are prices in a candle: one hour of trading suffices."""
        return opened == self.opened(opened) and any(
            self.is_open(at) and not self.is_hidden(at, min(at + HOUR_S, opened + self.length_s))
            for at in self._hours_of(opened)
        )

    def is_open_in(self, opened: int) -> bool:
        """Say whether the market is open in a candle by the clock, be it a holiday or not."""
        return any(map(self.is_open, self._hours_of(opened)))

    def _hours_of(self, opened: int) -> range:
        return range(opened, opened + self.length_s, HOUR_S)

    def is_hidden(self, start: int, end: int) -> bool:
        """Say whether there are no prices because of a holiday."""
        return not self._market.exists(self.symbol, start * 1000, end * 1000)

    def opened(self, at: int) -> int:
        """Return when the candle that holds a moment began."""
        return at - (at - (market_day_hour(at) * HOUR_S if self._is_new_york else 0)) % self.length_s

    def between(self, start: float, end: float) -> list[int]:
        """Return the open times of the candles that are not over at `start` and are by `end`."""
        found = []
        at = self.opened(int(start))
        while at + self.length_s <= end:
            if self.exists(at):
                found.append(at)
            at = self.opened(at + self.length_s)
        return found

    def values(self, opened: int) -> Values:
        """Return open, high, low and close."""
        part = self._market.span(self.symbol, opened * 1000, (opened + self.length_s) * 1000)
        scale = self._scale
        return part.open / scale, part.high / scale, part.low / scale, part.close / scale


class StreamJudge:
    """Judges one stream of one client. `wrong` has a sentence for each fault, with its kind."""

    def __init__(self, who: str, name: str, truth: Truth, scenario: Scenario, troubles: Sequence[Trouble] = ()) -> None:
        self.name = f"{who} {name}"
        self.told: list[Told] = []
        self.wrong: list[tuple[str, str]] = []
        self.revised = self.compared = 0
        self.states: set[str] = set()
        self._truth = truth
        self._scenario = scenario
        self._troubles = troubles

    def _complain(self, kind: str, text: str) -> None:
        self.wrong.append((kind, f"{self.name}: {text}"))

    def judge(self, spans: Sequence[tuple[float, float]]) -> None:
        """Judge everything; `spans` are when the client was subscribed."""
        self._judge_closes(spans)
        for start, end in spans:
            self._judge_states(start, end)
            self._judge_openings(start, end)

    def _judge_closes(self, spans: Sequence[tuple[float, float]]) -> None:
        closed: dict[int, tuple[float, Values]] = {}
        gaps: list[tuple[float, int, int]] = []
        newest = 0
        for at, message in self.told:
            if message["type"] == "error" and not self._is_excused(at, at, "error"):
                self._complain("refused", f"at {shown(at)}: {message['message']}")
            if message["type"] == "gap":
                gaps.append((at, message["from"], message["to"]))
                self._judge_gap(at, message)
            for opened, values, is_revised in closed_candles(message):
                self.revised += is_revised
                if is_revised:
                    closed[opened] = closed.get(opened, (at, values))[0], values
                    continue
                if opened in closed:
                    self._complain("twice", f"{shown(opened)} closed again at {shown(at)}")
                elif opened < newest:
                    self._complain("order", f"{shown(opened)} closed after {shown(newest)}")
                if not self._truth.exists(opened):
                    self._complain("never was", f"{shown(opened)} closed, the market was closed")
                newest = max(newest, opened)
                closed.setdefault(opened, (at, values))
        within_s = CLOSES_WITHIN_S[self._scenario.mode]
        until = min(spans[-1][1], self._scenario.end)
        due = self._truth.between(spans[0][0], until - within_s)
        settled = until - VALUES_WITHIN_S[self._scenario.plan] if self._scenario.settles_s else until
        missing = [opened for opened in due if opened not in closed]
        for first, last in _runs(missing, self._truth.length_s):
            is_gap = any(start <= first < end for _, start, end in gaps)
            what = "told as a gap and never repaired" if is_gap else "never closed"
            self._complain("gap" if is_gap else "missing", f"{shown(first)} to {shown(last)} {what}")
        for opened in due:
            if opened in closed:
                at, values = closed[opened]
                over = opened + self._truth.length_s
                true = self._truth.values(opened)
                self.compared += 1
                if values != true and over <= settled:
                    self._complain("values", f"{shown(opened)} closed as {values}, in truth {true}")
                back = min((start for start, end in spans if end >= over), default=over)
                if (
                    at > max(over, back) + within_s
                    and not self._was_throttled(max(over, back), at)
                    and not self._is_excused(over, at)
                ):
                    self._complain("late", f"{shown(opened)} was over at {shown(over)} and closed at {shown(at)}")

    def _is_excused(self, start: float, end: float, status: str | None = None) -> bool:
        """Say whether the provider was in trouble, or has been until a moment ago, and the state is true then."""
        return any(
            trouble.start < end and trouble.end + RECOVERS_S > start
            for trouble in self._troubles
            if status is None or trouble.allowed is None or status in trouble.allowed
        )

    def _was_throttled(self, start: float, end: float) -> bool:
        """Say whether the client knew that a close has to wait for credits: it was told before or meanwhile."""
        before = [message["status"] for at, message in self.told if message["type"] == "status" and at <= start]
        return before[-1:] == ["throttled"] or any(
            message.get("status") == "throttled" and start <= at <= end for at, message in self.told
        )

    def _judge_gap(self, at: float, message: Message) -> None:
        """A gap names candles that are missing; on a holiday nobody knows without asking that there are none."""
        start, end = message["from"], message["to"]
        knows = "was not asked" not in message["reason"]
        for hour in range(start, end, min(HOUR_S, self._truth.length_s)):
            opened = self._truth.opened(hour)
            if not self._truth.is_open_in(opened) or (knows and not self._truth.exists(opened)):
                told = f"{shown(start)} to {shown(end)} told at {shown(at)} ({message['reason']})"
                self._complain("gap in closed hours", f"{told} names {shown(hour)}")
                return

    def _states(self, start: float, end: float) -> list[tuple[float, float, str]]:
        """Return what the state was from when to when: `connected` from a confirmation until something else is told.

        A subscription that is refused is in the state `error` until the next one.
        """
        found = [(start, "connected")]
        for at, message in self.told:
            kind = message["type"]
            status = {"subscription": "connected", "error": "error", "status": message.get("status")}.get(kind)
            if start <= at <= end and status is not None:
                if at == found[-1][0]:
                    found.pop()
                if not found or status != found[-1][1]:
                    found.append((at, status))
        ends = [at for at, _ in found[1:]] + [end]
        return [(at, until, status) for (at, status), until in zip(found, ends, strict=True)]

    def _judge_states(self, start: float, end: float) -> None:
        changes = [start, *(at for at, _ in self._truth.changes(start, end)), end]
        states = self._states(start, end)
        for opens, closes in pairwise(changes):
            is_open = self._truth.is_open(opens + 1)
            for at, until, status in states:
                self.states.add(status)
                # What is left when the first moments after each change are forgiven.
                first, last = max(at, opens + SETTLES_S), min(until, closes)
                if not is_open and status == "throttled":
                    # Its last candles are due yet.
                    first = max(
                        [first, *(at for at, told in self.told if opens <= at < closes and [*closed_candles(told)])]
                    )
                if is_open:
                    self._judge_required(max(at, opens), last, status)
                if last - first < 1 or self._is_excused(first, last, status):
                    continue
                lasted = f"from {shown(first)} to {shown(last)}"
                if not is_open and status != "market_closed":
                    self._complain(f"{status} while closed", lasted)
                elif is_open and self._is_bank_holiday(first, last):
                    # Metals are filled with bars on holidays too, and bars are taken.
                    if not self._is_metal and status != "market_closed" and last - first > QUIET_S:
                        self._complain(f"{status} on a bank holiday", lasted)
                elif is_open and status == "market_closed":
                    self._complain("market_closed while open", lasted)
                elif is_open and status == "throttled" and self._scenario.plan == "free":
                    continue
                elif is_open and status != "connected" and last - first > QUIET_S and not self._is_holiday(first, last):
                    self._complain(f"{status} while open", lasted)
                elif is_open and status == "connected" and (silent_s := self._silent_s(first, last)) > QUIET_S:
                    self._complain("connected without prices", f"{lasted}, {silent_s:.0f} s of it")

    def _judge_required(self, first: float, last: float, status: str) -> None:
        for trouble in self._troubles:
            start, end = max(first, trouble.start + RECOVERS_S), min(last, trouble.end)
            # It is tried again now and then, and the state says so.
            if trouble.required and status != trouble.required and end - start > QUIET_S:
                self._complain(f"{status} in trouble", f"{trouble.name}, from {shown(start)} to {shown(end)}")

    def _is_holiday(self, start: float, end: float) -> bool:
        return any(start < last + HOUR_S and end > first for first, last in self._scenario.holidays)

    def _is_bank_holiday(self, start: float, end: float) -> bool:
        """Say whether a time lies in a holiday that the relay knows; metals close earlier and open an hour later."""
        before_s, after_s = (4 * HOUR_S, HOUR_S) if self._is_metal else (0, 0)
        return any(
            first - before_s <= start < last + after_s and end <= last + after_s + SETTLES_S
            for first, last in self._scenario.bank_holidays
        )

    @property
    def _is_metal(self) -> bool:
        return " XA" in self.name

    def _silent_s(self, start: float, end: float) -> float:
        """Return how much of a time lies so far in a holiday that its silence is no accident."""
        if self._truth.length_s > (HOUR_S if self._scenario.plan == "free" else 4 * HOUR_S):
            return 0.0
        total = 0.0
        for first, last in self._scenario.holidays:
            opened = max([first, *(at for at, is_open in self._truth.changes(first, last) if is_open)])
            total += max(0.0, min(end, last) - max(start, opened + 2 * self._truth.length_s + SILENT_S))
        return total

    def _judge_openings(self, start: float, end: float) -> None:
        within_s = FIRST_PRICE_S[self._scenario.mode]
        for opened, is_open in self._truth.changes(start, end - within_s):
            is_holiday = self._is_holiday(opened, opened + within_s) or self._is_bank_holiday(opened, opened + 1)
            if not is_open or is_holiday or self._is_excused(opened, opened + 1):
                continue
            if self._scenario.shares_credits and self._was_throttled(opened, opened + SETTLES_S):
                continue
            first = next((at for at, message in self.told if at >= opened and _price_time(message) >= opened), None)
            if first is None or first > opened + within_s:
                came = "none" if first is None else f"{first - opened:.0f} s later"
                self._complain("first price", f"opened {shown(opened)}, first price {came}")


def _price_time(message: Message) -> int:
    """Return the end of the candle that a price belongs to, 0 where there is none."""
    if message["type"] != "price_update" or message["is_closed"]:
        return 0
    return int(message["candle"]["time"]) + LENGTHS_S[message["interval"]] - 1


def closed_candles(message: Message) -> Iterator[tuple[int, Values, bool]]:
    """Yield open time, values and whether it is revised of each closed candle in a message."""
    candles: Iterable[Message] = ()
    revised: Iterable[Message] = ()
    if message["type"] == "snapshot":
        candles = message["candles"] if message["last_is_closed"] else message["candles"][:-1]
        revised = message.get("revised", ())
    elif message["type"] == "price_update" and message["is_closed"]:
        candles, revised = ((), (message["candle"],)) if message.get("revised") else ((message["candle"],), ())
    for part, is_revised in ((revised, True), (candles, False)):
        for candle in part:
            values = candle["open"], candle["high"], candle["low"], candle["close"]
            yield candle["time"], values, is_revised


def _runs(times: Sequence[int], length_s: int) -> Iterator[tuple[int, int]]:
    first = last = None
    for at in times:
        if first is None or last is None:
            first = at
        elif at != last + length_s:
            yield first, last
            first = at
        last = at
    if first is not None and last is not None:
        yield first, last
