"""Runs a relay whose only providers are those of a recording."""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from relay.commands.distribution import Distribution, Replay
from relay.commands.formatting import moment
from relay.commands.recording import bounds_of, instruments_of, open_recording, start_of
from relay.config.settings import SETTINGS, Config
from relay.core.counted import counted
from relay.plugins.discovery import builtin
from relay.plugins.loader import PluginHost
from relay.server.run import serve
from relay.storage.recorded_candles import RecordedCandles
from relay.telemetry.events import event

log = logging.getLogger(__name__)


@contextmanager
def opened_replay(
    distribution: Distribution, names: Sequence[str], begins: int | None, speed: float
) -> Iterator["ReplayRun"]:
    """Open what flags name, to be played from a moment on (Unix seconds), so many times as fast as real time.

    Raises `ConfigError` or `StoreError`.
    """
    recording = open_recording(names)
    try:
        start, end = start_of(recording, begins), bounds_of(recording)[1]
        known = {provider: instruments_of(recording, provider) for provider in recording.streams}
        replay = distribution.replay(recording=recording, instruments=known, start=start, end=end, speed=speed)
        with tempfile.TemporaryDirectory(prefix="market-relay-replay-") as folder:
            off = [builtin(one).name for one in distribution.providers()]
            yield ReplayRun(recording, replay, start, speed, str(Path(folder, "replay.db")), off)
    finally:
        recording.close()


class ReplayRun:
    """A replay that is ready to be served; what the relay stores of it goes into a `database` of its own.

    `off` are the names of providers that are not part of it.
    """

    def __init__(
        self,
        recording: RecordedCandles,
        replay: Replay,
        start: int,
        speed: float,
        database: str,
        off: Sequence[str],
    ) -> None:
        self._recording = recording
        self._replay = replay
        self._start = start
        self._speed = speed
        self._database = database
        self._off = off

    async def serve(self, config: Config, say: Callable[[str], None], read: Callable[[], Config]) -> None:
        """Serve until SIGINT or SIGTERM, as `relay.server.run.serve` does. Raises `ConfigError`."""

        def tell(line: str) -> None:
            say(f"{line} (replay from {moment(self._start)} at {self._speed:g} times the speed)")
            first, end = bounds_of(self._recording)
            count = sum(map(len, self._recording.streams.values()))
            log.info(
                "the recording %s has %s of %s, from %s to %s; time begins with the first subscription",
                self._recording.name,
                counted(count, "stream"),
                ", ".join(self._recording.streams),
                moment(first),
                moment(end),
                extra=event("replay", streams=count, first=first, end=end, start=self._start, speed=self._speed),
            )

        await serve(
            self._apart(config),
            self._replay.providers,
            tell,
            lambda: self._apart(read()),
            installed=False,
            server_time=self._replay.now,
        )

    def _apart(self, config: Config) -> Config:
        """Return the configuration without other providers, except plugins that a flag names, and without its database.

        The past must not get among the candles of a relay, nor be deleted because it is old.
        """
        is_asked = config.sources.get("plugins") == SETTINGS["plugins"].flag
        plugins = config.plugins if is_asked else ()
        host = PluginHost()
        host.find((), plugins, installed=False)
        off = {*self._recording.streams, *self._off, *config.instances} - {*host.found}
        prefixes = tuple(f"RELAY_{name}_".upper() for name in off)
        return dataclasses.replace(
            config,
            database=self._database,
            retention=(),
            plugins=plugins,
            tables=MappingProxyType({name: table for name, table in config.tables.items() if name in host.found}),
            instances=MappingProxyType({name: one for name, one in config.instances.items() if name in host.found}),
            environ=MappingProxyType(
                {name: value for name, value in config.environ.items() if not name.startswith(prefixes)}
            ),
        )
