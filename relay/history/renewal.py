"""A past that a client is sent anew: its provider changed it, or gave it late; however long that takes."""

import asyncio
import math

from relay.core.errors import ProviderError, RateLimited, RequestError, StoreError
from relay.core.intervals import length_s
from relay.core.spans import FOREVER
from relay.history.joining import LEAST_WAIT_S, Joining, JoiningClient
from relay.history.past_fetch import CandleQuota, Fetched
from relay.plugins.provider import Provider
from relay.protocol.client_requests import MOST_BARS, PastWanted, Request
from relay.protocol.server_messages import StreamState
from relay.streams.subscriptions import Stream

WAIT_S = 1.0
"""It waits so long after a failure to be asked for again; twice as long each time."""
MOST_WAIT_S = 30.0


class Renewal(Joining):
    """Sends a client that has a stream its past anew; less than the client has may not take the place of that.

    A request for what follows some time that comes meanwhile is answered first, by what the client has not; one for
    the newest candles is answered by what is sent anew, which has so many at least, and all that the client has.
    """

    def __init__(
        self, client: JoiningClient, quota: CandleQuota, stream: Stream, provider: Provider, request: Request
    ) -> None:
        super().__init__(client, quota, stream, provider, request, may_lack=False)
        self.ids = []
        self._began_at = self._confirmed_at = provider.clock.now()
        self._bars = request.past.bars or 0
        self._failure_wait_s = WAIT_S
        # For so many candles that open while a slow provider is asked there is room.
        self._room = 0

    @property
    def is_pending(self) -> bool:
        """Whether what is sent is followed by a past that takes its place."""
        return not self.replaces

    async def run(self) -> None:
        """Fetch the past and send it, however long it has to wait."""
        try:
            await self._run()
        finally:
            self.close()

    def replace(self, request: Request) -> None:
        """Answer a later request, whose options count at once: the client has the stream."""
        super().replace(request)
        client, stream = self._client, self.stream
        client.hub.subscribe(client.subscriber, stream, request.options, begin=FOREVER)

    def _want(self, past: PastWanted) -> None:
        self._bars = max(self._bars, past.bars or 0)
        self._wanted = PastWanted(self._bars, replaces=True) if past.since is None else past

    def _tell_wait(self, status: StreamState, message: str) -> None:
        """Say nothing: the stream is live."""

    async def _attempt(self) -> bool:
        self._reach_back()
        try:
            is_over = await super()._attempt()
        except RateLimited:
            raise
        except RequestError as error:
            # It had its share of candles, and was promised these.
            await asyncio.sleep(max(LEAST_WAIT_S, error.retry_after or 0.0))
            return False
        except (ProviderError, StoreError):
            await asyncio.sleep(self._failure_wait_s)
            self._failure_wait_s = min(MOST_WAIT_S, 2 * self._failure_wait_s)
            return False
        if is_over and not self.replaces:
            self._wanted = PastWanted(self._bars, replaces=True)
            return False
        return is_over

    def _reach_back(self) -> None:
        """Reach as far back as what the client has, and as when it began if it had to wait."""
        if not self.replaces:
            return
        now, length = self._provider.clock.now(), length_s(self.stream.key.interval)
        wanted = self._bars + math.ceil((now - self._began_at) / length)
        held = math.ceil((now - self._client.begins.get(self.stream, now)) / length) + 1 + self._room
        self._wanted = PastWanted(min(MOST_BARS, max(wanted, held)), replaces=True)

    def _is_enough(self, fetched: Fetched) -> bool:
        """Say whether what was fetched reaches as far back as what the client has: that was reckoned before."""
        begin = self._client.begins.get(self.stream)
        if not self.replaces or begin is None or fetched.reaches_from <= begin or self._wanted.bars == MOST_BARS:
            return True
        self._room += 2 * math.ceil((fetched.reaches_from - begin) / length_s(self.stream.key.interval))
        return False

    def _owed_after(self) -> float | None:
        """Return from when on the client has what is replaced: more may have come since that was reckoned."""
        return self._client.begins.get(self.stream) if self.replaces else super()._owed_after()

    def _state(self) -> list[bytes]:
        """Return nothing: the client hears of each state of the stream."""
        return []
