"""What WebSocket connections are served from."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from relay.history.past_fetch import PAST_WAITS, PastWaits
from relay.history.service import HistoryService
from relay.instruments.directory import Directory
from relay.streams.hub import Hub
from relay.supervision.supervisor import Supervisor
from relay.web.access.access import Access
from relay.web.work_budget import WorkBudget
from relay.web.ws.frame_reader import RecentReaders
from relay.web.ws.leaving import Leaving


@dataclass(slots=True)
class ConnectionContext:
    """The parts of the relay that all connections share. The configuration in force is that of `access`.

    `server_time` is what clients are told that the time is, in Unix seconds.
    """

    access: Access
    hub: Hub
    directory: Directory
    history: HistoryService
    supervisors: dict[str, Supervisor]
    server_time: Callable[[], float] = field(default_factory=lambda: time.time)
    work_budget: WorkBudget = field(default_factory=WorkBudget)
    recent_readers: RecentReaders = field(default_factory=RecentReaders)
    leaving: Leaving = field(default_factory=Leaving)
    past_waits: PastWaits = PAST_WAITS
