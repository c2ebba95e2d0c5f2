"""How a stand-in is told to misbehave, the same words for every exchange; it holds the orders, `standin.py` obeys."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Literal, NamedTuple, Protocol

Computed = Literal["late", "at_once", "either"]

GARBAGE: tuple[str | bytes, ...] = (
    "",
    "not json",
    '{"e":"kline"',
    "null",
    "true",
    "42",
    '"text"',
    "[]",
    '[1,2,{"e":"kline"}]',
    "{}",
    '{"stream":"btcusdt@kline_1m"}',
    '{"stream":"btcusdt@kline_1m","data":null}',
    '{"stream":5,"data":{"e":"kline","k":{}}}',
    '{"stream":"btcusdt@kline_1m","data":[]}',
    '{"e":"kline","E":1,"s":"BTCUSDT"}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":null}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":"soon","i":"1m","x":"perhaps"}}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1e400,"T":2,"s":"BTCUSDT","i":"1m","o":"1","c":"1","h":"1","l":"1",'
    '"v":"1","x":false}}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":NaN,"T":2,"s":"BTCUSDT","i":"1m","o":"NaN","c":"Infinity","h":"x",'
    '"l":"","v":"-","x":false}}',
    '{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":0,"T":59999,"s":"BTCUSDT","i":"1m","o":"1' + "0" * 400 + '",'
    '"c":"1","h":"1","l":"1","v":"1","x":false}}',
    '{"event":"price","symbol":"EUR/USD","timestamp":"now","price":"dear"}',
    '{"event":"price","symbol":null,"timestamp":1,"price":1}',
    '{"event":"price"}',
    '{"event":"subscribe-status","status":"ok","success":"EUR/USD","fails":7}',
    '{"result":null}',
    '{"id":null,"result":[1,[2,[3,[4]]]]}',
    "\x00\ufffd\u202e",
    "[" * 600 + "]" * 600,
    b"\x00\x01\x02\xff",
    b'{"e":"kline"}',
)


class RestAnswer(NamedTuple):
    """One answer that a stand-in gives to REST requests instead of its own."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]
    path: str | None
    truncated: bool


class Faults:
    """The orders in force for one stand-in; every method takes effect at once and `clear` ends all of them."""

    def __init__(self, target: "FaultTarget") -> None:
        self._target = target
        self.garbage_sent = 0
        self._dice = Random(1)
        self._reset()

    def _reset(self) -> None:
        self.refusal_status: int | None = None
        self._refusal_until: float | None = None
        self._refusals_left: int | None = None
        self.muted_all = False
        self.muted: set[str] = set()
        self.frame_delay_s = 0.0
        self._rest_delay_s = (0.0, 0.0)
        self._computed: Computed = "late"
        self.connection_life_s: float | None = None
        self._closings_lost: dict[str | None, int | None] = {}
        self._subscriptions_refused: tuple[int | None, str] = (0, "")
        self._answers: list[tuple[RestAnswer, int | None]] = []
        self._open_to_new = asyncio.Event()
        self._open_to_new.set()

    def clear(self) -> None:
        """Behave well again from now on; listens again if it had stopped. Dropped connections stay dropped."""
        self.thaw()
        self.unmute()
        self._reset()
        self._target.recheck_lives()
        self._target.listen_again()

    # ---- connections --------------------------------------------------------------------------------------------

    def drop(self, code: int | None = None, *, connection: int | None = None, reason: str = "") -> int:
        """End all WebSocket connections (or the one numbered so); tells how many.

        Without a code TCP is aborted and no close frame is sent; with one the closing is orderly.
        """
        return self._target.drop_connections(code, connection=connection, reason=reason)

    def refuse(self, status: int = 503, *, seconds: float | None = None, times: int | None = None) -> None:
        """Answer new WebSocket connections with this HTTP status, for a time, so many times, or until `accept`."""
        self.refusal_status = status
        self._refusal_until = None if seconds is None else time.monotonic() + seconds
        self._refusals_left = times

    def stop_listening(self, *, seconds: float | None = None, rest: bool = False) -> None:
        """Refuse new TCP connections to the WebSocket address, with `rest` to the REST address too."""
        self._target.stop_listening(seconds=seconds, rest=rest)

    def accept(self) -> None:
        """Take new connections again after `refuse` or `stop_listening`; `listening()` of the stand-in waits for it."""
        self.refusal_status = None
        self._target.listen_again()

    def refusal(self) -> int | None:
        """Tell the HTTP status for a connection being opened now, None to let it in; uses up one of `times`."""
        if self.refusal_status is None:
            return None
        if self._refusal_until is not None and time.monotonic() >= self._refusal_until:
            self.refusal_status = None
            return None
        if self._refusals_left is not None:
            if self._refusals_left <= 0:
                self.refusal_status = None
                return None
            self._refusals_left -= 1
        return self.refusal_status

    def cut_after(self, seconds: float | None) -> None:
        """Abort each WebSocket connection so long after it was opened, also those open now; None ends that."""
        self.connection_life_s = seconds
        self._target.recheck_lives()

    # ---- frames -------------------------------------------------------------------------------------------------

    def mute(self, *streams: str, reconnect_helps: bool = False, resubscribe_helps: bool = False) -> None:
        """Send no data on these streams (none named: on all); sockets stay open, pings and requests are answered.

        It lasts until `unmute`. With `reconnect_helps` only connections open now are concerned; with
        `resubscribe_helps` a stream speaks again also when it is unsubscribed and subscribed anew on them.
        """
        if reconnect_helps or resubscribe_helps:
            self._target.mute_connections(streams, resubscribe_helps=resubscribe_helps)
        elif streams:
            self.muted.update(streams)
        else:
            self.muted_all = True

    def unmute(self, *streams: str) -> None:
        """Send data again on these streams, or on all when none is named."""
        if streams:
            self.muted.difference_update(streams)
        else:
            self.muted_all = False
            self.muted.clear()
        self._target.unmute_connections(streams)

    def is_muted(self, stream: str) -> bool:
        """Tell whether data of a stream is held back."""
        return self.muted_all or stream in self.muted

    def freeze(self, *, new_too: bool = False) -> None:
        """Leave open sockets open but neither read nor write them: no data, no pongs, no answers, as if half open.

        New connections work, unless `new_too` makes them hang before the upgrade. REST is not concerned.
        """
        self._target.freeze_connections()
        if new_too:
            self._open_to_new.clear()

    def thaw(self) -> None:
        """Read and write again after `freeze`; what had piled up is handled now."""
        self._open_to_new.set()
        self._target.thaw_connections()

    async def admitted(self) -> None:
        """Wait until new connections no longer hang."""
        await self._open_to_new.wait()

    def delay_frames(self, seconds: float) -> None:
        """Send every frame that much later than due, in order; 0 ends that."""
        self.frame_delay_s = seconds

    def send_garbage(self, *frames: str | bytes) -> int:
        """Send these frames (none given: all of `GARBAGE`) on every connection; tells how many per connection."""
        chosen = frames or GARBAGE
        self._target.broadcast(chosen)
        self.garbage_sent += len(chosen)
        return len(chosen)

    def lose_closings(self, *streams: str, times: int | None = None) -> None:
        """Do not send the closing event of these streams (none named: of any), the next `times` or always."""
        for stream in streams or (None,):
            self._closings_lost[stream] = times

    def takes_closing(self, stream: str) -> bool:
        """Tell whether the closing event due now is to be lost; uses up one of `times`."""
        for name in (stream, None):
            if name not in self._closings_lost:
                continue
            left = self._closings_lost[name]
            if left is None:
                return True
            if left > 0:
                self._closings_lost[name] = left - 1
                return True
        return False

    def refuse_subscriptions(self, times: int | None = None, message: str = "busy") -> None:
        """Answer the next `times` requests to subscribe with an error, or all until `clear`."""
        self._subscriptions_refused = times, message

    def subscription_refusal(self) -> str | None:
        """Tell the error for a request to subscribe made now, None to grant it; uses up one of `times`."""
        times, message = self._subscriptions_refused
        if times == 0:
            return None
        self._subscriptions_refused = None if times is None else times - 1, message
        return message

    # ---- REST ---------------------------------------------------------------------------------------------------

    def answer_rest(
        self, status: int, body: str | bytes = b"", *, content_type: str = "application/json",
        retry_after: int | None = None, times: int | None = None, path: str | None = None, truncated: bool = False,
    ) -> None:  # fmt: skip
        """Answer REST requests like this, the next `times` or until `answer_rest_normally`; orders queue up.

        `path` limits it to one path. With `truncated` half the body is sent and the connection aborted; an empty
        body then truncates the stand-in's own answer.
        """
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        raw = body.encode() if isinstance(body, str) else body
        self._answers.append((RestAnswer(status, raw, content_type, headers, path, truncated), times))

    def answer_rest_normally(self) -> None:
        """Forget every order of `answer_rest`."""
        self._answers.clear()

    def delay_rest(self, seconds: float, most: float | None = None, *, computed: Computed = "late") -> None:
        """Answer every REST request that much later, with `most` between the two, drawn for each call; 0 ends that.

        The answer tells of the moment at which it is delivered ("late"), of the request ("at_once"), or the dice say.
        """
        self._rest_delay_s = (seconds, seconds if most is None else most)
        self._computed = computed

    def rest_delay(self) -> tuple[float, float]:
        """Draw the seconds to wait before and after an answer is computed."""
        if self._rest_delay_s == (0.0, 0.0):
            return 0.0, 0.0
        delay_s = self._dice.uniform(*self._rest_delay_s)
        is_late = self._computed == "late" or (self._computed == "either" and self._dice.random() < 0.5)
        return (delay_s, 0.0) if is_late else (0.0, delay_s)

    def rest_answer(self, path: str) -> RestAnswer | None:
        """Tell what to answer a request for a path instead of the truth; uses up one of `times`."""
        for at, (answer, left) in enumerate(self._answers):
            if answer.path is not None and answer.path != path:
                continue
            if left is not None:
                if left <= 1:
                    del self._answers[at]
                else:
                    self._answers[at] = (answer, left - 1)
            return answer
        return None


class FaultTarget(Protocol):
    """What a stand-in must be able to do so that `Faults` can be obeyed."""

    def drop_connections(self, code: int | None, *, connection: int | None, reason: str) -> int:
        """End connections; tells how many."""
        ...

    def stop_listening(self, *, seconds: float | None, rest: bool) -> None:
        """Close the listening sockets."""
        ...

    def listen_again(self) -> None:
        """Open the listening sockets again."""
        ...

    def recheck_lives(self) -> None:
        """Apply a changed connection life to open connections."""
        ...

    def mute_connections(self, streams: Sequence[str], *, resubscribe_helps: bool) -> None:
        """Hold data back on the connections open now."""
        ...

    def unmute_connections(self, streams: Sequence[str]) -> None:
        """Send data again on all connections."""
        ...

    def freeze_connections(self) -> None:
        """Stop reading and writing the connections open now."""
        ...

    def thaw_connections(self) -> None:
        """Read and write all connections again."""
        ...

    def broadcast(self, frames: Iterable[str | bytes]) -> None:
        """Queue frames on every connection."""
        ...


class ControlMessage(NamedTuple):
    """One message that a client sent on a WebSocket connection; times are of the monotonic clock."""

    time: float
    connection: int
    kind: str
    text: str


class Connect(NamedTuple):
    """One attempt to open a WebSocket connection."""

    time: float
    path: str
    status: int


class RestCall(NamedTuple):
    """One REST request as answered; `query` never holds the key."""

    time: float
    path: str
    query: dict[str, str]
    status: int
    cost: int


def most_in_any_second(times: Iterable[float], window_s: float = 1.0) -> int:
    """Count the most moments that lie within one window, wherever it begins."""
    ordered = sorted(times)
    most = first = 0
    for last, moment in enumerate(ordered):
        while ordered[first] <= moment - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


Check = Callable[[], bool]


async def until(check: Check, timeout_s: float = 10.0, every_s: float = 0.005) -> None:
    """Wait until a condition on a stand-in holds; raises TimeoutError after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not check():  # noqa: ASYNC110  the condition spans a stand-in's whole state, which has no single event
            await asyncio.sleep(every_s)
