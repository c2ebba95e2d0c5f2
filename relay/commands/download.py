"""Candles of any range of a running relay, page after page: what to ask next, when to try again, how far it is."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from relay.client import ClientError, History, Refused, RelayClient, Unreachable

PAGE = 5000
"""What a relay gives at once."""
MOST_BACKWARDS = 50_000
"""Most candles without a start: they are held in memory."""

_TRIES = 6
_LONGEST_WAIT_S = 120.0


async def pages(
    client: RelayClient,
    symbol: str,
    interval: str,
    *,
    start: int | None,
    end: int | None,
    limit: int | None,
    extended: bool = False,
    counts_closed: bool = False,
) -> AsyncGenerator[History, None]:
    """Yield candles, oldest first: from `start` all up to `end` or now, or `limit`; without `start` the last `limit`.

    With `counts_closed` an open candle comes in addition to the last `limit`. There is one page at least. After the
    first, what a moment may heal is tried again. Raises `ClientError`.
    """
    if start is None:
        for page in await _backwards(client, symbol, interval, end, limit, extended, counts_closed):
            yield page
        return
    left, is_first = limit, True
    while True:
        count = PAGE if left is None else min(left, PAGE)
        tries = 1 if is_first else _TRIES
        page = await _ask(client, symbol, interval, start, end, count, tries, extended)
        yield page
        is_first = False
        if left is not None:
            left -= len(page.candles)
        if _is_last(page, count) or not page.last_is_closed or left == 0:
            return
        start = page.candles[-1].time + 1
        if end is not None and start > end:
            return


async def _backwards(
    client: RelayClient,
    symbol: str,
    interval: str,
    end: int | None,
    limit: int | None,
    extended: bool,
    counts_closed: bool,
) -> list[History]:
    found: list[History] = []
    left = limit
    while left is None or left > 0:
        count = None if left is None else min(left, PAGE)
        page = await _ask(client, symbol, interval, None, end, count, _TRIES if found else 1, extended)
        found.append(page)
        if left is None or count is None or _is_last(page, count) or page.candles[0].time == 0:
            break
        left -= len(page.candles)
        if counts_closed and len(found) == 1 and not page.last_is_closed:
            left += 1
        end = page.candles[0].time - 1
    return found[::-1]


def _is_last(page: History, count: int) -> bool:
    """Say whether nothing follows a page: one that lacks candles may lack those at its end."""
    return not page.candles or (len(page.candles) < count and page.is_complete)


async def _ask(
    client: RelayClient,
    symbol: str,
    interval: str,
    start: int | None,
    end: int | None,
    limit: int | None,
    tries: int,
    extended: bool,
) -> History:
    for at in range(1, tries + 1):
        try:
            return await client.history(
                symbol, interval, start_time=start, end_time=end, limit=limit, extended=extended
            )
        except ClientError as fault:
            wait_s = 2.0 ** (at - 1)
            if isinstance(fault, Refused):
                if fault.status < 500 and fault.status != 429:
                    raise
                wait_s = max(wait_s, fault.retry_after or 0.0)
            elif not isinstance(fault, Unreachable):
                raise
            if at == tries or wait_s > _LONGEST_WAIT_S:
                raise
        await asyncio.sleep(wait_s)
    raise AssertionError("unreachable: the last try returns or raises")


class DownloadProgress:
    """A progress bar on stderr, from the second page on; none where stderr is no terminal."""

    def __init__(self, progress: Progress | None, start: int | None, end: int | None) -> None:
        self._progress = progress
        self._start = start
        self._end = min(end, time.time()) if end is not None else time.time()
        self._task = None if progress is None else progress.add_task("", total=None, candles="0", visible=False)
        self._pages = 0
        self._candles = 0

    def advance(self, page: History) -> None:
        """Take a page that was written."""
        self._pages += 1
        self._candles += len(page.candles)
        if self._progress is None or self._task is None or not page.candles:
            return
        if self._start is None:
            self._start = page.candles[0].time
        self._progress.update(
            self._task,
            total=max(1.0, self._end - self._start),
            completed=page.candles[-1].time - self._start,
            candles=f"{self._candles:,}",
            visible=self._pages > 1,
        )


@contextmanager
def metered(start: int | None, end: int | None, *, is_shown: bool) -> Iterator[DownloadProgress]:
    """Give a meter; its bar is gone at the end."""
    console = Console(stderr=True)
    if not is_shown or not console.is_terminal or console.is_dumb_terminal:
        yield DownloadProgress(None, start, end)
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[candles]} candles"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield DownloadProgress(progress, start, end)
