"""What the connection brought and nobody has read yet: in order, bounded, and of an open candle only the newest."""

import asyncio
from collections import deque
from collections.abc import Collection

from relay.client.messages import Message, Update
from relay.core.model import StreamKey


class _Place:
    """Where a message stands, so that it can be replaced there."""

    __slots__ = ("message", "size")

    def __init__(self, message: Message, size: int) -> None:
        self.message = message
        self.size = size


class Inbox:
    """Messages for any number of readers, each for one of them.

    An unread update of an open candle is replaced by the stream's next one, as the relay does for clients that read
    slowly; nothing else is left out. Beyond `most` messages, or `most_size` of what brought them, it `is_full`, and
    stays so until all are read.
    """

    def __init__(self, most: int, most_size: int) -> None:
        self._most = most
        self._most_size = most_size
        self._messages: deque[_Place] = deque()
        self._size = 0
        self._replaceable: dict[StreamKey, _Place] = {}
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()
        self.is_full = False

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message, size: int = 0) -> None:
        """Add a message; `size` is that of the text that brought it, 0 for all but the first one of a text."""
        self._put(message, size)
        self.is_full = self.is_full or len(self._messages) > self._most or self._size > self._most_size
        self._changed.set()

    def _put(self, message: Message, size: int) -> None:
        self._size += size
        if isinstance(message, Update) and not message.is_closed and not message.is_revised:
            place = self._replaceable.get(message.key)
            if place is not None:
                self._size -= place.size
                place.message, place.size = message, size
                return
            place = self._replaceable[message.key] = _Place(message, size)
        else:
            key = getattr(message, "key", None)
            if key is not None:
                self._replaceable.pop(key, None)
            else:
                self._replaceable.clear()
            place = _Place(message, size)
        self._messages.append(place)

    def pop(self) -> Message:
        """Return the oldest message; there has to be one."""
        place = self._messages.popleft()
        message = place.message
        self._size -= place.size
        if isinstance(message, Update) and self._replaceable.get(message.key) is place:
            del self._replaceable[message.key]
        self._note_empty()
        return message

    def forget(self, keys: Collection[StreamKey]) -> None:
        """Leave out the messages of streams."""
        self._messages = deque(place for place in self._messages if getattr(place.message, "key", None) not in keys)
        self._size = sum(place.size for place in self._messages)
        for key in keys:
            self._replaceable.pop(key, None)
        self._note_empty()

    def clear(self) -> None:
        """Leave out everything."""
        self._messages.clear()
        self._size = 0
        self._replaceable.clear()
        self._note_empty()

    def wake(self) -> None:
        """Let all readers look again."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for a message or `wake`; several readers may wake up for one message."""
        self._changed.clear()
        await self._changed.wait()

    async def emptied(self) -> None:
        """Wait until everything is read."""
        while self._messages:
            self._emptied.clear()
            await self._emptied.wait()

    def _note_empty(self) -> None:
        if not self._messages:
            self.is_full = False
            self._emptied.set()
