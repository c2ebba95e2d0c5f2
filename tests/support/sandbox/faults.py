"""How a stand-in is told to misbehave, the same words for every exchange; it holds the orders, `stand_in.py` obeys."""

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple

from aiohttp import WSMsgType

from providers.sandbox.connection import Connection

if TYPE_CHECKING:
    from tests.support.sandbox.stand_in import StandIn

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

    def __init__(self, stand_in: "StandIn") -> None:
        self._stand_in = stand_in
        self._dice = Random(1)
        self._life_s: float | None = None
        self._cuts: dict[int, asyncio.TimerHandle] = {}
        self._frozen: set[int] = set()
        self._thawed = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self.refusal_status: int | None = None
        self.refusal_headers: dict[str, str] = {}
        self._refusal_until: float | None = None
        self._refusals_left: int | None = None
        self._muted_all = False
        self._muted: set[str] = set()
        self._muted_of: dict[int, set[str] | None] = {}
        self._subscribing_helps: set[int] = set()
        self.frame_delay_s = 0.0
        self._rest_delay_s = (0.0, 0.0)
        self._computed: Computed = "late"
        self._closings_lost: dict[str | None, int | None] = {}
        self._subscriptions_refused: tuple[int | None, str] = (0, "")
        self._answers: list[tuple[RestAnswer, int | None]] = []
        self._open_to_new = asyncio.Event()
        self._open_to_new.set()

    def clear(self) -> None:
        """Behave well again from now on; listens again if it had stopped. Dropped connections stay dropped."""
        self.thaw()
        self.cut_after(None)
        self._reset()
        self._stand_in.listen_again()

    # ---- connections --------------------------------------------------------------------------------------------

    def drop(self, code: int | None = None, *, connection: int | None = None, reason: str = "") -> int:
        """End all WebSocket connections (or the one numbered so); tells how many.

        Without a code TCP is aborted and no close frame is sent; with one the closing is orderly.
        """
        chosen = [one for one in self._stand_in.open.values() if connection is None or one.number == connection]
        for one in chosen:
            if code is None:
                one.abort()
            else:
                one.close(code, reason)
        return len(chosen)

    def refuse(
        self,
        status: int = 503,
        *,
        seconds: float | None = None,
        times: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        """Answer new WebSocket connections with this HTTP status, for a time, so many times, or until `accept`."""
        self.refusal_status = status
        self.refusal_headers = {} if retry_after is None else {"Retry-After": retry_after}
        self._refusal_until = None if seconds is None else time.monotonic() + seconds
        self._refusals_left = times

    def stop_listening(self, *, seconds: float | None = None, rest: bool = False) -> None:
        """Refuse new TCP connections to the WebSocket address, with `rest` to the REST address too."""
        self._stand_in.stop_listening(seconds=seconds, rest=rest)

    def accept(self) -> None:
        """Take new connections again after `refuse` or `stop_listening`; `listening()` of the stand-in waits for it."""
        self.refusal_status = None
        self._stand_in.listen_again()

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
        self._life_s = seconds
        for cut in self._cuts.values():
            cut.cancel()
        self._cuts.clear()
        for connection in self._stand_in.open.values():
            self.opened(connection)

    def opened(self, connection: Connection) -> None:
        """Apply `cut_after` to a connection."""
        if self._life_s is not None:
            left_s = max(0.0, connection.opened + self._life_s - time.monotonic())
            cut = asyncio.get_running_loop().call_later(left_s, connection.abort)
            self._cuts[connection.number] = cut

    # ---- frames -------------------------------------------------------------------------------------------------

    def mute(self, *streams: str, reconnect_helps: bool = False, resubscribe_helps: bool = False) -> None:
        """Send no data on these streams (none named: on all); sockets stay open, pings and requests are answered.

        It lasts until `unmute`. With `reconnect_helps` only connections open now are concerned; with
        `resubscribe_helps` a stream speaks again also when it is unsubscribed and subscribed anew on them.
        """
        if reconnect_helps or resubscribe_helps:
            for number, connection in self._stand_in.open.items():
                (self._subscribing_helps.add if resubscribe_helps else self._subscribing_helps.discard)(number)
                muted = self._muted_of.setdefault(number, set())
                if not streams and not resubscribe_helps:
                    self._muted_of[number] = None
                elif muted is not None:
                    muted.update(streams or connection.subscriptions)
        elif streams:
            self._muted.update(streams)
        else:
            self._muted_all = True

    def unmute(self, *streams: str) -> None:
        """Send data again on these streams, or on all when none is named."""
        if not streams:
            self._muted_all = False
            self._muted.clear()
            self._muted_of.clear()
        self._muted.difference_update(streams)
        for muted in self._muted_of.values():
            if muted is not None:
                muted.difference_update(streams)

    def subscribed(self, connection: Connection, streams: set[str]) -> None:
        """Let new subscriptions end a silence of which they do."""
        muted = self._muted_of.get(connection.number)
        if muted is not None and connection.number in self._subscribing_helps:
            muted -= streams

    def is_muted(self, stream: str, connection: Connection) -> bool:
        """Tell whether data of a stream is held back from a connection."""
        muted = self._muted_of.get(connection.number, ())
        return self._muted_all or stream in self._muted or muted is None or stream in muted

    def freeze(self, *, new_too: bool = False) -> None:
        """Leave open sockets open but neither read nor write them: no data, no pongs, no answers, as if half open.

        New connections work, unless `new_too` makes them hang before the upgrade. REST is not concerned.
        """
        self._frozen |= self._stand_in.open.keys()
        self._thawed.clear()
        if new_too:
            self._open_to_new.clear()

    def thaw(self) -> None:
        """Read and write again after `freeze`; what had piled up is handled now."""
        self._open_to_new.set()
        self._frozen.clear()
        self._thawed.set()

    async def thawed(self, connection: Connection) -> None:
        """Wait until a connection is not frozen."""
        if connection.number in self._frozen:
            await self._thawed.wait()

    async def admitted(self) -> None:
        """Wait until new connections no longer hang."""
        await self._open_to_new.wait()

    def delay_frames(self, seconds: float) -> None:
        """Send every frame that much later than due, in order; 0 ends that."""
        self.frame_delay_s = seconds

    def send_garbage(self, *frames: str | bytes) -> int:
        """Send these frames (none given: all of `GARBAGE`) on every connection; tells how many per connection."""
        chosen = frames or GARBAGE
        for one in chosen:
            for connection in self._stand_in.open.values():
                connection.send(one, WSMsgType.BINARY if isinstance(one, bytes) else WSMsgType.TEXT)
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
