"""Attempts to open a feed: how many there may be, and why there were so many; pure."""

from collections import Counter, deque

CONNECTS = 250
CONNECTS_WINDOW_S = 300.0
MOST_SENTENCES = 100

CAUSES = (
    *("closed", "lost", "unavailable", "timeout", "rate_limited", "bad_answer", "failed"),
    *("rotation", "announced", "silent", "settings"),
)
"""Why a feed is opened anew, in one word: it ended (first line), or it was replaced before it did (second)."""


class Attempts:
    """All attempts of one provider's feeds: counted, and kept below 300 in 5 minutes, the tightest limit known.

    `again` counts feeds opened anew by one of `CAUSES`; `sentences` by what was said, of which there may be many.
    """

    def __init__(self) -> None:
        self.connects = 0
        self.again: Counter[str] = Counter()
        self.sentences: Counter[str] = Counter()
        self._at: deque[float] = deque(maxlen=CONNECTS)

    def reserve(self, now: float) -> float:
        """Take a place for one attempt; return in how many seconds it may be made, 0 nearly always."""
        self.connects += 1
        at = now
        if len(self._at) == CONNECTS:
            at = max(now, self._at[0] + CONNECTS_WINDOW_S)
        self._at.append(at)
        return at - now

    def has_spare(self, now: float) -> bool:
        """Say whether more than half of the places are free, for what comes after candles."""
        return len(self._at) < CONNECTS // 2 or self._at[-(CONNECTS // 2)] + CONNECTS_WINDOW_S <= now

    def count_again(self, cause: str, sentence: str) -> None:
        """Count that a feed ended or is replaced, so that another one follows."""
        self.again[cause] += 1
        is_known = sentence in self.sentences or len(self.sentences) < MOST_SENTENCES
        self.sentences[sentence if is_known else "other causes"] += 1
