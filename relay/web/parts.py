"""What WebSocket connections are served from."""

from dataclasses import dataclass, field

from relay.directory import Directory
from relay.history import History
from relay.hub import Hub
from relay.supervision.supervisor import Supervisor
from relay.web.access import Access
from relay.web.rounds import Rounds


@dataclass(slots=True)
class Parts:
    """The parts of the relay that all connections share. The configuration in force is that of `access`."""

    access: Access
    hub: Hub
    directory: Directory
    history: History
    supervisors: dict[str, Supervisor]
    rounds: Rounds = field(default_factory=Rounds)
