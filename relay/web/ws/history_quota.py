"""How many candles of the past one client may have, and with it all clients of its token or address."""

from relay.core.rate_limits import TokenBucket
from relay.web.access.access import Access, Caller, check_rows, rows_limit


class HistoryQuota:
    """Counts what one connection is given, and what its token or address is."""

    __slots__ = ("_access", "_bucket", "_caller")

    def __init__(self, access: Access, caller: Caller) -> None:
        self._access = access
        self._caller = caller
        self._bucket = TokenBucket(*rows_limit(access.config.max_history_rows_per_minute))

    @property
    def client(self) -> str:
        """Whom the past is for, as history's calls take turns."""
        return self._caller.client

    def check(self) -> None:
        """Refuse when either had its share. Raises `RequestError`."""
        check_rows(self._bucket, self._access.config.max_history_rows_per_minute, "one client")
        self._access.check_rows(self._caller)

    def spend(self, rows: int) -> None:
        """Count candles that were fetched."""
        self._bucket.spend(rows)
        self._access.spend_rows(self._caller, rows)

    def set_limit(self) -> None:
        """Go by the limit that is in force now."""
        self._bucket.set_limit(*rows_limit(self._access.config.max_history_rows_per_minute))
