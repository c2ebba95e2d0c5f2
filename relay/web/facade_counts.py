"""What a facade did: how many requests it answered, what it asked upstream for them, and what that saved; pure."""

from collections import Counter


class FacadeCounts:
    """`answered` has the requests by kind. `calls` and `weight` are what was asked upstream for them.

    `title` is what operators are told of its programs.
    `weight_asked` is what the same requests would have cost the service itself, so the difference was saved.
    `live_series` counts series, and order books, that are followed live now because they are polled.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.answered: Counter[str] = Counter()
        self.calls = 0
        self.weight = 0
        self.weight_asked = 0
        self.live_series = 0

    @property
    def weight_saved(self) -> int:
        """The weight that was not spent."""
        return max(0, self.weight_asked - self.weight)
