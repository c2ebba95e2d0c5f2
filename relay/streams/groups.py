"""Who is served together: subscribers with the same channels are one group, and are sent the same bytes."""

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

from relay.streams.subscriptions import Channel, Group, Subscriber, Wire


class GatherLimits(NamedTuple):
    """How long a subscriber is left alone after a change, and how many subscriptions are compared in one turn."""

    after_s: float = 0.05
    subscriptions_a_turn: int = 2_000


GATHER_LIMITS = GatherLimits()


class Groups:
    """The groups, and who is in which.

    While its subscriptions change a subscriber has a group of its own, so that a change costs nobody else anything; a
    moment later it is gathered with those who have the same, a limited number in each turn of the event loop.
    `settle` writes a subscriber what its group still has for it; after that it may have no group, since it lags.
    """

    def __init__(self, settle: Callable[[Subscriber], None], limits: GatherLimits = GATHER_LIMITS) -> None:
        self._settle = settle
        self._limits = limits
        self._all: dict[Group, None] = {}
        self._shared: dict[tuple[frozenset[Channel], Wire], Group] = {}
        self._alone: dict[Subscriber, None] = {}
        self._handle: asyncio.Handle | None = None

    @property
    def all(self) -> list[Group]:
        """All groups, also those of one subscriber."""
        return list(self._all)

    def of(self, channels: Iterable[Channel]) -> list[Group]:
        """Return the groups of channels, and perhaps others: where most are meant all are less work."""
        tables = [table for one in channels for table in (one.groups, one.deflated_groups, one.event_groups) if table]
        if len(tables) == 1:
            return list(tables[0])
        if sum(map(len, tables)) >= len(self._all):
            return list(self._all)
        found: dict[Group, list[bytes]] = {}
        for table in tables:
            found.update(table)
        return list(found)

    # -- one subscriber ----------------------------------------------------------------------------

    def isolate(self, subscriber: Subscriber) -> None:
        """Give a subscriber a group of its own; to be called before its subscriptions change."""
        group = subscriber.group
        if group is not None:
            # Frames of a channel that it leaves now would be found no more.
            self._settle(subscriber)
            if subscriber.group is None:
                return
        if group is not None and group.channels is not None:
            if len(group.members) == 1:
                del self._shared[group.channels, group.wire]
                group.channels = None
            else:
                _remove_member(group, subscriber)
                group = None
        if group is None:
            group = subscriber.group = Group(subscriber.wire)
            _add_member(group, subscriber)
            self._all[group] = None
            for channel in subscriber.subscriptions.values():
                self.enter(subscriber, channel)
        self._alone[subscriber] = None
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(self._limits.after_s, self._gather)

    def enter(self, subscriber: Subscriber, channel: Channel) -> None:
        """Serve a subscriber, who has a group of its own or none, a channel more."""
        if (group := subscriber.group) is not None:
            _groups_of(channel, group)[group] = group.pending

    def leave(self, subscriber: Subscriber, channel: Channel) -> None:
        """Serve a subscriber, who has a group of its own or none, a channel less."""
        if (group := subscriber.group) is not None:
            _groups_of(channel, group).pop(group, None)

    def dissolve(self, subscriber: Subscriber) -> None:
        """Take a subscriber out of its group, with all its channels. Harmless when it has none."""
        group, subscriber.group = subscriber.group, None
        self._alone.pop(subscriber, None)
        if group is None:
            return
        _remove_member(group, subscriber)
        if not group.members:
            if group.channels is not None:
                del self._shared[group.channels, group.wire]
            self._remove(group, subscriber.subscriptions.values())

    def _remove(self, group: Group, channels: Iterable[Channel]) -> None:
        del self._all[group]
        for channel in channels:
            _groups_of(channel, group).pop(group, None)

    # -- gathering ---------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Gather some of those who are alone, and the others in the next turns of the event loop."""
        self._handle = None
        left = self._limits.subscriptions_a_turn
        while self._alone and left > 0:
            subscriber = next(iter(self._alone))
            del self._alone[subscriber]
            left -= 1 + len(subscriber.subscriptions)
            self._join(subscriber)
        if self._alone:
            self._handle = asyncio.get_running_loop().call_soon(self._gather)

    def _join(self, subscriber: Subscriber) -> None:
        if not subscriber.subscriptions:
            self.dissolve(subscriber)
            return
        if subscriber.resumed is not None or subscriber.pending:
            # Its events say where it is in other streams than those of others of the group.
            return
        channels = frozenset(subscriber.subscriptions.values())
        identity = (channels, subscriber.wire)
        group = self._shared.get(identity)
        own = subscriber.group
        if group is None and own is not None:
            own.channels = channels
            self._shared[identity] = own
            return
        self._settle(subscriber)
        if group is None or own is None or subscriber.group is None:
            return
        self._remove(own, channels)
        _add_member(group, subscriber)
        if group.pending:
            # The subscriber has them, or came after them.
            group.ahead[subscriber] = len(group.pending)
        subscriber.group = group

    def close(self) -> None:
        """Stop the timer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _groups_of(channel: Channel, group: Group) -> dict[Group, list[bytes]]:
    if group.wire is Wire.FRAMES:
        return channel.groups
    return channel.deflated_groups if group.wire is Wire.DEFLATED else channel.event_groups


def _add_member(group: Group, subscriber: Subscriber) -> None:
    group.members[subscriber] = subscriber.outbox.transport
    group.sockets = None


def _remove_member(group: Group, subscriber: Subscriber) -> None:
    del group.members[subscriber]
    group.ahead.pop(subscriber, None)
    group.sockets = None
