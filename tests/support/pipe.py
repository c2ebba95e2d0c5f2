"""A transport for who writes to one without a socket."""


class Pipe:
    """What was read is in `read`; while the reader is stalled, what was written stays in `waiting`."""

    def __init__(self) -> None:
        self.read = bytearray()
        self.waiting = bytearray()
        self.is_stalled = False
        self.is_gone = False

    def write(self, data: bytes) -> None:
        self.waiting.extend(data)
        if not self.is_stalled:
            self.take(len(self.waiting))

    def take(self, count: int) -> None:
        """Read so many bytes, also while stalled."""
        self.read.extend(self.waiting[:count])
        del self.waiting[:count]

    def go_on(self) -> None:
        """Read all that waits and whatever comes."""
        self.is_stalled = False
        self.take(len(self.waiting))

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def is_closing(self) -> bool:
        return self.is_gone
