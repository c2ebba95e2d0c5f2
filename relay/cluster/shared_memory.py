"""What a provider wants to know later, known to all relays: whoever carries it next knows what was spent."""

from collections.abc import Callable
from typing import Any

from relay.core.saved_value import Memory


class SharedMemory(Memory):
    """A place in the database of this relay, whose newest value others learn.

    Raises what `Memory` raises.
    """

    def __init__(self, own: Memory, tell: Callable[[Any], None]) -> None:
        super().__init__()
        self.value = own.value
        self._own = own
        self._tell = tell

    async def save(self, value: Any) -> bool:
        """Keep this value in place of the one before, here and in all relays."""
        self.value = value
        # Before the call that it is about is made: so much may be spent, whatever becomes of this relay.
        self._tell(value)
        return await self._own.save(value)

    def tell(self) -> None:
        """Tell it once more, to those who did not hear it."""
        self._tell(self.value)

    async def learn(self, value: Any) -> None:
        """Take what another relay saved; it is the `value` at once, and in the database when this returns."""
        self.value = value
        await self._own.save(value)
