"""How far one stream got: where it goes on after a lost connection, and what its reader has still to see; pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from relay.client.decoding import candle_object
from relay.client.messages import Gap, Message, Outdated, Snapshot, Update
from relay.core.intervals import INTERVALS, length_s, next_open, open_time
from relay.core.model import Candle, StreamKey, repeats
from relay.protocol.client_requests import MOST_BARS

_MOST_GAPS = 50
_MOST_TOLD = 512


class StreamOptions(NamedTuple):
    """What an application asks of a stream."""

    bars: int | None = None
    since: int | None = None
    throttle_ms: int | None = None
    closed_only: bool = False
    extended: bool = False


class Progress:
    """What was asked of one stream and what was delivered. `options` may be replaced at any time.

    `gaps` are those that were told and are not repaired yet, from and to. With `is_in_doubt` closed candles may be
    missing before what came last: nothing of the stream counts until the relay was asked for it anew by `request`.
    Revisions are numbered by each relay: `relay` is the number of the one that is asked now, and `store` what it calls
    its database, if it said so. Several relays may share an address.
    """

    def __init__(self, interval: str, options: StreamOptions) -> None:
        self.options = options
        self._interval = interval
        self._last_closed: int | None = None
        self._last_open: int | None = None
        self._confirmed_at: int | None = None
        self._has_snapshot = False
        # By the relay, since it took the stream on this connection.
        self._is_told_gaps = False
        self.gaps: list[tuple[int, int]] = []
        self.relay = 0
        self.store: str | None = None
        # By relay, the number of the last revision that was told, and the store that it is of.
        self._newest_revisions: dict[int, tuple[int, str | None]] = {}
        self.is_in_doubt = False
        # The first open time that may be missing; the relay was asked for what lies before the other one.
        self._due: int | None = None
        self._explained = 0
        self._doubted = 0
        # Closed candles as they were told last: the relay may come to know later only that one is so, or was revised
        # and is so again.
        self._told: dict[int, Candle] = {}
        # Up to there the provider changed its history, and what it is now is still to come.
        self._outdated_before = 0
        # So many candles were asked for, and most of them are still to come.
        self._pending_bars: int | None = None
        self._begins_anew = False

    @property
    def was_confirmed(self) -> bool:
        """Whether the relay took the stream once."""
        return self._confirmed_at is not None

    def confirm(self, server_time: int) -> None:
        """Note that the relay took the stream; from the first time on every candle that closes is owed."""
        self._is_told_gaps = self.is_in_doubt = False
        if self._confirmed_at is None:
            self._confirmed_at = server_time

    def request(self, server_time: int = 0) -> dict[str, Any]:
        """Return the options of the next subscribe as the relay takes them; `server_time` is the relay's time now."""
        bars, _, throttle_ms, closed_only, extended = self.options
        since = None if self._begins_anew else self.resume_from()
        request: dict[str, Any] = {}
        if since is not None:
            request["since"] = since
            if self._newest_revisions:
                # Of a relay that named none yet all revisions are wanted: their numbers are its own.
                request["revision"], store = self._newest_revisions.get(self.relay, (0, None))
                if store is not None:
                    request["store"] = store
        # Once something was delivered, `bars` would cut what was missed.
        if self._begins_anew and self._pending_bars is not None:
            request["bars"] = min(MOST_BARS, self._pending_bars + self._opened_since(server_time))
        elif bars is not None and not self.is_under_way:
            request["bars"] = self._reaching_back(bars, server_time)
        if throttle_ms is not None:
            request["throttle_ms"] = throttle_ms
        if closed_only:
            request["closed_only"] = True
        if extended:
            request["extended"] = True
        return request

    def _reaching_back(self, bars: int, server_time: int) -> int:
        """Return so many, or as many as begin with what was open when the stream was confirmed: all since is owed."""
        if not bars or self._confirmed_at is None or self._interval not in INTERVALS:
            return bars
        return min(MOST_BARS, max(bars, self._opened_since(server_time) + 2))

    def _opened_since(self, server_time: int) -> int:
        """Return how many candles opened at least since the stream was confirmed, as far as that is known."""
        if self._confirmed_at is None or self._interval not in INTERVALS:
            return 0
        return (server_time - self._confirmed_at) // length_s(self._interval)

    def lose(self) -> None:
        """Know that the relay sends nothing more of what was asked for: what was still to come is asked for again."""
        self._begins_anew = self._pending_bars is not None

    def resume_from(self) -> int | None:
        """Return `since` for the next subscribe, or None to ask as the first time."""
        if self._last_closed is not None:
            return self._last_closed
        if self._last_open is not None:
            return self._last_open - 1
        if self._confirmed_at is None or self.options.since is not None:
            return self.options.since
        if self.options.bars and not self._has_snapshot:
            return None
        # Nothing came yet, so what is owed begins with the candle that was open when the stream was confirmed.
        return max(0, self._confirmed_at - length_s(self._interval)) if self._interval in INTERVALS else None

    def take_update(self, update: Update) -> bool:
        """Say whether the reader has still to see this update, and count it as seen."""
        if update.is_revised and update.candle.time < self._outdated_before:
            self._outdated_before = 0
        self.take_revision(update.wire.get("revision"))
        if update.is_revised:
            return self._take_revised(update.candle)
        if self._is_unexplained(update.candle.time):
            self._doubt(update.candle.time)
            return False
        return self._accept(update.candle, is_closed=update.is_closed)

    def take_gap(self, gap: Gap) -> Gap | None:
        """Note a gap that the relay told of, and return what of it is news.

        Before a snapshot the relay tells of all that the snapshot lacks. What it begins with may be candles that
        another relay had.
        """
        self._is_told_gaps = True
        start = gap.start
        while start < gap.end and start in self._told and self._interval in INTERVALS:
            start = next_open(self._interval, start)
        if start >= gap.end or not self._add_gap(start, gap.end):
            return None
        return gap if start == gap.start else gap._replace(start=start, wire={**gap.wire, "from": start})

    def take_revision(self, number: object) -> None:
        """Note the number of a revision: what was revised up to it was told, unless more of it is still to come."""
        if isinstance(number, int) and not self._outdated_before:
            known, store = self._newest_revisions.get(self.relay, (0, self.store))
            newest = max(number, known) if store == self.store else number
            self._newest_revisions[self.relay] = newest, self.store

    def take_outdated(self, start: int, before: int) -> None:
        """Take it that candles have other values now: what comes of them next is news."""
        self._told = {time: candle for time, candle in self._told.items() if not start <= time < before}
        self._outdated_before = max(self._outdated_before, before)

    def take_renewed(self, snapshot: Snapshot) -> None:
        """Take a past for which nobody asked: it is in the place of all that came, and nothing of it comes again."""
        self._note_pending(snapshot)
        self._outdated_before = 0
        self.take_revision(snapshot.wire.get("revision"))
        self._told.clear()
        for number, candle in enumerate(snapshot.candles, 1):
            is_closed = number < len(snapshot.candles) or snapshot.last_is_closed
            self._explained = max(self._explained, candle.time)
            if not self._accept(candle, is_closed=is_closed) and is_closed:
                self._take_revised(candle)

    def _note_pending(self, snapshot: Snapshot) -> None:
        asked = self._pending_bars if self._pending_bars is not None else self.options.bars
        self._pending_bars = asked if snapshot.is_pending else None

    def take_snapshot(self, snapshot: Snapshot, server_time: int, *, is_whole: bool = True) -> list[Message]:
        """Return what the reader has still to see of the past: as it came if it was asked for, else as updates.

        Without `is_whole` it answers for no more than it holds: the stream was followed already.
        """
        if self._begins_anew:
            self._begins_anew = False
            snapshot = snapshot._replace(wire={**snapshot.wire, "replaces": True})
            self.take_renewed(snapshot)
            return [snapshot]
        self._note_pending(snapshot)
        key, candles, last_is_closed, is_complete, seq, wire, _ = snapshot
        is_first = not self.is_under_way and (self.options.bars is not None or self.options.since is not None)
        self._outdated_before = 0
        self.take_revision(wire.get("revision"))
        states = [(candle, number < len(candles) or last_is_closed) for number, candle in enumerate(candles, 1)]
        if is_first:
            self._has_snapshot = True
            self._explained = max([self._explained, *(candle.time for candle in candles)])
            for candle, is_closed in states:
                self._accept(candle, is_closed=is_closed)
            return [snapshot]
        found: list[Message] = [*self._revisions(snapshot)]
        owed, since = self._first_owed(), self.resume_from()
        # It was asked for after these steps were seen, so it is the relay's last word on them.
        self._explained, self._doubted = max(self._explained, self._doubted), 0
        if not is_complete and owed is not None and since is not None and is_whole and not self._is_told_gaps:
            times = [candle.time for candle in candles if candle.time > since]
            gaps = list(self._holes(key, owed, times, server_time))
            for gap in gaps:
                self._add_gap(gap.start, gap.end)
            found += gaps
        for candle, is_closed in states:
            if self._is_unexplained(candle.time):
                self._doubt(candles[-1].time)
                break
            # A gap was told, and a later candle: what it lacked comes after that.
            is_late = self._last_open is not None and candle.time < self._last_open
            if self._accept(candle, is_closed=is_closed):
                found.append(_missed(key, candle, is_closed=is_closed, seq=seq, is_revised=is_late))
        return found

    def _revisions(self, snapshot: Snapshot) -> Iterator[Message]:
        """Yield what a resume brings of candles that the reader has, or was told to be missing."""
        key, since = snapshot.key, self.resume_from()
        for candle in snapshot.revised:
            if self._take_revised(candle):
                yield _missed(key, candle, is_closed=True, seq=snapshot.seq, is_revised=True)
        if snapshot.wire.get("revisions_known") is False and since is not None:
            names = {"type": "outdated", "symbol": key.symbol, "interval": key.interval}
            yield Outdated(key, since + 1, {**names, "before": since + 1})

    @property
    def is_under_way(self) -> bool:
        """Whether anything of the stream came."""
        return self._has_snapshot or self._last_closed is not None or self._last_open is not None

    def _first_owed(self) -> int | None:
        """Return the first open time that may be missing, as far as it is known."""
        if self._last_closed is not None and self._interval in INTERVALS:
            return next_open(self._interval, self._last_closed)
        since = self.resume_from()
        return None if since is None else since + 1

    def _holes(self, key: StreamKey, owed: int, times: list[int], server_time: int) -> Iterator[Gap]:
        """Yield what the relay left out without a word, as it does if it has no history; what is open now is not."""
        is_known = self._interval in INTERVALS
        for at in times or [self._open_at(server_time)]:
            if owed < at:
                yield _gap(key, owed, at)
            # The steps of an interval that only a newer relay has are not known.
            if not is_known:
                return
            owed = next_open(self._interval, at)

    def _open_at(self, moment: int) -> int:
        if self._interval not in INTERVALS:
            return moment
        if self._last_closed is None or self._interval == "1M":
            return open_time(self._interval, moment)
        # A venue may count days and weeks from days of its own.
        return moment - (moment - self._last_closed) % length_s(self._interval)

    def _accept(self, candle: Candle, *, is_closed: bool) -> bool:
        open_time = candle.time
        if self._last_closed is not None and open_time <= self._last_closed:
            return False
        if self._last_closed is None and self._last_open is not None and open_time < self._last_open:
            # What came before the first candle was never owed; a resume may bring it along.
            return False
        is_known = self._interval in INTERVALS
        if is_closed:
            self._last_closed = open_time
            self._due = next_open(self._interval, open_time) if is_known else None
            self._settle(open_time)
            # A gap may have been repaired by a revision before the stream came past it.
            return self._remember(candle)
        if open_time in self._told or (self._last_open is not None and open_time < self._last_open):
            return False
        if self._last_closed is None and is_known:
            self._due = open_time
        self._last_open = open_time
        return True

    # -- what may be missing -----------------------------------------------------------------------------------------

    def _is_unexplained(self, open_time: int) -> bool:
        """Say whether closed candles may be missing right before this one, and the relay said nothing of it."""
        due = self._due
        if due is None or open_time <= due or open_time <= self._explained:
            return False
        for start, end in self.gaps:
            if start <= due < end:
                due = end
        return due < open_time

    def _doubt(self, open_time: int) -> None:
        self.is_in_doubt = True
        self._doubted = max(self._doubted, open_time)

    def _add_gap(self, start: int, end: int) -> bool:
        if any(other[0] <= start and end <= other[1] for other in self.gaps):
            return False
        self.gaps = sorted([*self.gaps, (start, end)])[-_MOST_GAPS:]
        return True

    def _settle(self, open_time: int) -> None:
        """Take a candle that came after all out of the gaps."""
        if self.gaps and self._interval in INTERVALS:
            end = next_open(self._interval, open_time)
            parts = [
                part for gap in self.gaps for part in ((gap[0], min(gap[1], open_time)), (max(gap[0], end), gap[1]))
            ]
            self.gaps = [(start, stop) for start, stop in parts if start < stop]

    def _take_revised(self, candle: Candle) -> bool:
        self._settle(candle.time)
        return self._remember(candle)

    def _remember(self, candle: Candle) -> bool:
        """Keep a closed candle as it is told, for a while; say whether it is other than what was told before."""
        is_other = not repeats(self._told.pop(candle.time, None), candle)
        self._told[candle.time] = candle
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]
        return is_other


def _gap(key: StreamKey, start: int, end: int) -> Gap:
    reason = "the relay could not send all candles that were missed while the connection was lost"
    names = {"symbol": key.symbol, "interval": key.interval}
    return Gap(key, start, end, reason, {"type": "gap", **names, "from": start, "to": end, "reason": reason})


def _missed(key: StreamKey, candle: Candle, *, is_closed: bool, seq: int | None, is_revised: bool = False) -> Update:
    wire: dict[str, Any] = {
        "type": "price_update",
        "symbol": key.symbol,
        "interval": key.interval,
        "candle": candle_object(candle),
        "is_closed": is_closed,
        "seq": seq,
        "ts_event": None,
    }
    if is_closed:
        wire["backfilled"] = True
    if is_revised:
        wire["revised"] = True
    return Update(key, candle, is_closed, is_closed, is_revised, None, seq, wire)
