"""What the lists of one provider say, put together: absence in one answer is no fact; pure."""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from relay.core.counted import counted
from relay.core.model import Instrument

Standing = Literal["trading", "paused", "gone", "unknown"]
"""What a list says of a symbol; `gone`: it was listed, and left the list for good."""

BELIEVED_AFTER = 3
"""A symbol has left the list when so many answers in a row are without it, each a life of the list after the last.

An answer between, because somebody asked for what is in no list or because the list is doubted, can show it again.
"""
MUCH = 10
"""A tenth: where more is absent from an answer than that, the answer is of a moment."""
MUCH_BELIEVED_AFTER_S = 6 * 3600.0
"""So long answers have to agree before much that is absent, or a list that is too short, is believed."""


class Listing:
    """The instruments of one provider, by symbol in upper case. Times are of one clock, in seconds.

    `is_known` says whether absence means anything: not before a list came that has `least` entries and most of those
    that are `always` listed, now or in an earlier run. `doubt` says why the list should be asked for again soon, empty:
    it need not. `life_s` is how long an answer is good for.
    """

    def __init__(self, least: int, always: Collection[str] = (), life_s: float = 0.0) -> None:
        self.instruments: dict[str, Instrument] = {}
        self.is_known = False
        self.doubt = ""
        self._least = least
        self._always = frozenset(symbol.upper() for symbol in always)
        self._life_s = life_s
        self._gone: set[str] = set()
        # How many answers count that were without them, and when the last of these came.
        self._absent: dict[str, tuple[int, float]] = {}
        # Those that traded before and are paused since.
        self._paused: set[str] = set()
        self._much_since: float | None = None
        self._short_since: float | None = None

    def recall(self, instruments: Iterable[Instrument]) -> None:
        """Take the list of an earlier run, which counts as one that came."""
        self.instruments = _by_symbol(instruments)
        self.is_known = not self._lacks(self.instruments)

    def take(self, instruments: Iterable[Instrument], now: float) -> bool:
        """Take an answer; return whether anything but extras is different now.

        May run in a thread beside readers: `instruments` is never changed, but replaced. Raises `AttributeError` if a
        symbol is no text.
        """
        answer = _by_symbol(instruments)
        before = self.instruments
        if not self.is_known:
            self._judge(answer, now)
        self._note_pauses(answer)
        after = before | answer
        gone = self._gone_by(before, answer, now)
        for symbol in gone:
            del after[symbol], self._absent[symbol]
        self._gone = self._gone - answer.keys() | gone
        self._paused &= after.keys()
        self.instruments = after
        self.doubt = self._doubt_about(answer)
        return len(after) != len(before) or any(map(_differs, after.values(), map(before.get, after)))

    def _doubt_about(self, answer: dict[str, Instrument]) -> str:
        if not self.is_known:
            return self._lacks(answer)
        if self._absent:
            return f"{len(self._absent)} of {len(self.instruments)} symbols are missing"
        if not any(one.status == "trading" for one in answer.values()):
            return "none of its symbols is trading"
        return f"{counted(len(self._paused), 'symbol')} stopped trading" if self._paused else ""

    def _lacks(self, answer: Mapping[str, Instrument]) -> str:
        """Say what shows that this is not the whole list, empty if nothing does."""
        if len(answer) < self._least:
            return f"it has {len(answer)} entries, fewer than {self._least}"
        missing = self._always - answer.keys()
        return f"it does not contain {', '.join(sorted(missing))}" if 2 * len(missing) > len(self._always) else ""

    def _judge(self, answer: Mapping[str, Instrument], now: float) -> None:
        if self._short_since is None:
            self._short_since = now
        self.is_known = not self._lacks(answer) or now - self._short_since >= MUCH_BELIEVED_AFTER_S

    def _note_pauses(self, answer: dict[str, Instrument]) -> None:
        for symbol, one in answer.items():
            if one.status == "trading":
                self._paused.discard(symbol)
            elif (old := self.instruments.get(symbol)) is not None and old.status == "trading":
                self._paused.add(symbol)

    def _gone_by(self, before: dict[str, Instrument], answer: dict[str, Instrument], now: float) -> set[str]:
        """Count what is absent from an answer; return what has left the list for good."""
        absent = self._absent
        self._absent = {
            symbol: self._counted(*absent[symbol], now) if symbol in absent else (1, now)
            for symbol in before.keys() - answer.keys()
        }
        known = len(before.keys() | answer.keys())
        if len(self._absent) == known or len(self._absent) > max(1, known // MUCH):
            if self._much_since is None:
                self._much_since = now
            if now - self._much_since < MUCH_BELIEVED_AFTER_S:
                return set()
        else:
            self._much_since = None
        return {symbol for symbol, (count, _) in self._absent.items() if count >= BELIEVED_AFTER}

    def _counted(self, count: int, at: float, now: float) -> tuple[int, float]:
        return (count + 1, now) if now - at >= self._life_s else (count, at)

    def standing(self, symbol: str) -> Standing:
        """Return what is known of a symbol in upper case."""
        one = self.instruments.get(symbol)
        if one is not None:
            return "paused" if one.status == "paused" else "trading"
        return "gone" if symbol in self._gone else "unknown"


def _differs(one: Instrument, other: Instrument | None) -> bool:
    return one is not other and (other is None or one[:_EXTRAS] != other[:_EXTRAS])


_EXTRAS = Instrument._fields.index("extras")


def _by_symbol(instruments: Iterable[Instrument]) -> dict[str, Instrument]:
    return {instrument.symbol.upper(): instrument for instrument in instruments}
