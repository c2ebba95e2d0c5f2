"""Finds instruments by what somebody types: exact symbols first, then beginnings, words and parts; in short turns.

All texts stand in blocks of bytes, the likeliest instruments first, so a search is a few scans that end once there are
enough hits. Nothing here knows how an instrument is shown.
"""

import asyncio
import re
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain

from relay.core.model import Instrument
from relay.instruments.spellings import COMMON_NAMES, QUOTES

ROWS_OF_BLOCK = 512
"""Some 40 KB: a scan of one takes 10 µs."""
WORK_OF_TURN = 600
"""So much is done in one turn, some half a millisecond: a hit counts as 1, a scanned block as `_WORK_OF_BLOCK`."""
_WORK_OF_BLOCK = 10

_WORD = re.compile(r"\w+")
_SIGN = re.compile(r"[\W_]+")
_QUOTE_RANKS = {quote: rank for rank, quote in enumerate(QUOTES)}
_NAMES_OF: dict[str, list[str]] = defaultdict(list)
for _name, _code in COMMON_NAMES.items():
    _NAMES_OF[_code].append(_name)

Turn = Callable[[], Awaitable[None]]


async def next_turn() -> None:
    """Let others run."""
    await asyncio.sleep(0)


class SearchIndex:
    """What is searched of some instruments; a hit is the number of one, in the order in which they were given.

    Of equal hits the first is one that trades, then one against a currency that most people mean, then the shorter
    symbol, then one that the relay calls by its symbol alone, without a provider in front, as `names` say, then by
    symbol if they were given so. It takes some 90 bytes for each; made in a thread where there are many: `give_way` is
    called after every few.
    """

    def __init__(
        self, instruments: Sequence[Instrument], give_way: Callable[[], None], names: Sequence[str] | None = None
    ) -> None:
        ranks: dict[tuple[bool, int, int, bool], list[int]] = defaultdict(list)
        for number, one in enumerate(instruments):
            rank = _QUOTE_RANKS.get(one.quote.upper(), len(_QUOTE_RANKS))
            is_pinned = names is not None and names[number].upper() != one.symbol.upper()
            ranks[one.status != "trading", rank, len(one.symbol), is_pinned].append(number)
            if not number % ROWS_OF_BLOCK:
                give_way()
        self._numbers = array("I")
        for rank_key in sorted(ranks):
            self._numbers.extend(ranks[rank_key])
        self._blocks: list[bytes] = []
        self._starts: list[array[int]] = []
        for first in range(0, len(self._numbers), ROWS_OF_BLOCK):
            texts = [_text(instruments[number]) for number in self._numbers[first : first + ROWS_OF_BLOCK]]
            starts, at = array("I"), 0
            for text in texts:
                starts.append(at)
                at += len(text)
            self._blocks.append(b"".join(texts))
            self._starts.append(starts)
            give_way()

    @property
    def size(self) -> int:
        """How many bytes the texts take."""
        return sum(map(len, self._blocks))

    async def find(
        self, query: str, limit: int, is_wanted: Callable[[int], bool] = lambda _: True, turn: Turn = next_turn
    ) -> list[int]:
        """Return the best hits, at most so many, of those that are wanted; all words of the query are in each.

        Others run between its turns.
        """
        text = "".join(char if char.isprintable() else " " for char in query).casefold()
        words = [word.encode("utf-8", "replace") for word in text.split()]
        found: dict[int, None] = {}
        for pattern in _patterns(words, _SIGN.sub("", text).encode("utf-8", "replace")):
            async for number, _ in self._scanned(pattern, turn):
                if number not in found and is_wanted(number):
                    found[number] = None
                    if len(found) >= limit:
                        return [*found]
        if len(words) > 1:
            for number in await self._with_all(words, limit, is_wanted, turn):
                found[number] = None
        return [*found][:limit]

    async def _with_all(
        self, words: list[bytes], limit: int, is_wanted: Callable[[int], bool], turn: Turn
    ) -> Iterable[int]:
        """Return what has all of several words: as whole words, as beginnings of words, or as parts of them."""
        # The rarest is scanned for, by a sample; the others are looked for where it is.
        driver, *others = sorted(words, key=lambda word: sum(block.count(word) for block in self._blocks[::16]))
        whole, begun, parts = list[int](), list[int](), list[int]()
        async for number, text in self._scanned(driver, turn):
            if not all(other in text for other in others) or not is_wanted(number):
                continue
            if all(b" %b " % word in text for word in words):
                whole.append(number)
                if len(whole) >= limit:
                    break
            elif all(b" %b" % word in text for word in words):
                begun.append(number)
            else:
                parts.append(number)
        return chain(whole, begun, parts)

    async def _scanned(self, pattern: bytes, turn: Turn) -> AsyncIterator[tuple[int, bytes]]:
        """Yield each instrument with a pattern in its text, and the text."""
        work = first = 0
        for block, starts in zip(self._blocks, self._starts, strict=True):
            at = block.find(pattern)
            while at >= 0:
                row = bisect_right(starts, at) - 1
                end = starts[row + 1] if row + 1 < len(starts) else len(block)
                yield self._numbers[first + row], block[starts[row] : end]
                at = block.find(pattern, end)
                work += 1
                if work >= WORK_OF_TURN:
                    work = 0
                    await turn()
            first += len(starts)
            work += _WORK_OF_BLOCK
            if work >= WORK_OF_TURN:
                work = 0
                await turn()


def _patterns(words: list[bytes], bare: bytes) -> Iterator[bytes]:
    """Yield what to scan for, best first: the exact symbol, what begins so, and forms of a single word."""
    if not words:
        return
    whole = b" ".join(words)
    yield b"\1%b\1" % whole
    if bare:
        yield b"\1%b " % bare
    yield b"\1%b" % whole
    if bare and bare != whole:
        yield b"\1%b" % bare
    if len(words) == 1:
        yield b" %b " % whole
        yield b" %b" % whole
        yield whole


def _text(one: Instrument) -> bytes:
    """Return what is searched: the symbol, then without signs, then words, each between spaces."""
    symbol, name = one.symbol.casefold(), (one.name or "").casefold()
    base, quote = one.base.casefold(), one.quote.casefold()
    words: Iterable[str] = (
        *(_WORD.findall(symbol) if not symbol.isalnum() else ()),
        base,
        quote,
        *(common.casefold() for code in (one.base.upper(), one.quote.upper()) for common in _NAMES_OF.get(code, ())),
        *name.split(),
        *_WORD.findall(name),
    )
    line = f"\1{symbol}\1{_SIGN.sub('', symbol)} {' '.join(dict.fromkeys(words))} "
    return line.encode("utf-8", "replace")
