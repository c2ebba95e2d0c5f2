"""How far one stream got: where it goes on after a lost connection, and what its reader has still to see; pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from relay.client.messages import Gap, Message, Snapshot, Update
from relay.intervals import INTERVALS, length_s, next_open, open_time
from relay.model import Candle, StreamKey


class Options(NamedTuple):
    """What an application asks of a stream."""

    bars: int | None = None
    since: int | None = None
    throttle_ms: int | None = None
    closed_only: bool = False


class Progress:
    """What was asked of one stream and what was delivered. `options` may be replaced at any time."""

    def __init__(self, interval: str, options: Options) -> None:
        self.options = options
        self._interval = interval
        self._last_closed: int | None = None
        self._last_open: int | None = None
        self._confirmed_at: int | None = None
        self._has_snapshot = False
        # By the relay, since it took the stream on this connection.
        self._is_told_gaps = False

    @property
    def was_confirmed(self) -> bool:
        """Whether the relay took the stream once."""
        return self._confirmed_at is not None

    def confirm(self, server_time: int) -> None:
        """Note that the relay took the stream; from the first time on every candle that closes is owed."""
        self._is_told_gaps = False
        if self._confirmed_at is None:
            self._confirmed_at = server_time

    def request(self) -> dict[str, Any]:
        """Return the options of the next subscribe as the relay takes them."""
        bars, _, throttle_ms, closed_only = self.options
        since = self.resume_from()
        request: dict[str, Any] = {}
        if since is not None:
            request["since"] = since
        # Once something was delivered, `bars` would cut what was missed.
        if bars is not None and not self._is_under_way:
            request["bars"] = bars
        if throttle_ms is not None:
            request["throttle_ms"] = throttle_ms
        if closed_only:
            request["closed_only"] = True
        return request

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
        return self._accept(update.candle.time, is_closed=update.is_closed, is_revised=update.is_revised)

    def take_gap(self) -> None:
        """Note a gap that the relay told of: before a snapshot it tells of all that the snapshot lacks."""
        self._is_told_gaps = True

    def take_snapshot(self, snapshot: Snapshot, server_time: int) -> list[Message]:
        """Return what the reader has still to see of the past: as it came if it was asked for, else as updates."""
        key, candles, last_is_closed, is_complete, seq, _ = snapshot
        is_first = not self._is_under_way and (self.options.bars is not None or self.options.since is not None)
        owed = self._first_owed()
        fresh = [
            (candle, is_closed)
            for number, candle in enumerate(candles, 1)
            for is_closed in (number < len(candles) or last_is_closed,)
            if self._accept(candle.time, is_closed=is_closed, is_revised=False)
        ]
        if is_first:
            self._has_snapshot = True
            return [snapshot]
        found: list[Message] = []
        if not is_complete and owed is not None and not self._is_told_gaps:
            found += self._holes(key, owed, [candle.time for candle, _ in fresh], server_time)
        found += [_missed(key, candle, is_closed=is_closed, seq=seq) for candle, is_closed in fresh]
        return found

    @property
    def _is_under_way(self) -> bool:
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

    def _accept(self, open_time: int, *, is_closed: bool, is_revised: bool) -> bool:
        if self._last_closed is not None and open_time <= self._last_closed:
            return is_revised
        if self._last_closed is None and self._last_open is not None and open_time < self._last_open:
            # What came before the first candle was never owed; a resume may bring it along.
            return is_revised
        if is_closed:
            self._last_closed = open_time
        elif self._last_open is not None and open_time < self._last_open:
            return False
        else:
            self._last_open = open_time
        return True


def _gap(key: StreamKey, start: int, end: int) -> Gap:
    reason = "the relay could not give all that was missed while the connection was lost"
    names = {"symbol": key.symbol, "interval": key.interval}
    return Gap(key, start, end, reason, {"type": "gap", **names, "from": start, "to": end, "reason": reason})


def _missed(key: StreamKey, candle: Candle, *, is_closed: bool, seq: int | None) -> Update:
    wire: dict[str, Any] = {
        "type": "price_update",
        "symbol": key.symbol,
        "interval": key.interval,
        "candle": candle._asdict(),
        "is_closed": is_closed,
        "seq": seq,
        "ts_event": None,
    }
    if is_closed:
        wire["backfilled"] = True
    return Update(key, candle, is_closed, is_closed, False, None, seq, wire)
