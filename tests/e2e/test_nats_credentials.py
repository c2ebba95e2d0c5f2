"""Credentials files of NATS (JWT and nkey), with a real server that takes nobody else."""

from pathlib import Path

import pytest

from relay.cluster.bus import BusError
from relay.cluster.nats_bus import NatsAccess, NatsBus
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.nats_accounts import NatsAccounts
from tests.support.nats_server import nats_program, nats_running

SUBJECTS = ["mr.test.>", "_INBOX.>", "$JS.API.>", "$KV.relay_test_leases.>"]
"""What the guide says that relays of the namespace `test` need, and no more."""


async def test_a_credentials_file_opens_the_bus_and_a_new_one_does_when_it_has_expired(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    accounts, config, credentials = NatsAccounts(), tmp_path / "nats.conf", tmp_path / "relay.creds"
    accounts.write_config(config)
    async with nats_running(nats_program(request.config), tmp_path, "-c", str(config)) as server:
        url = f"nats://127.0.0.1:{server.port}"
        bus = NatsBus(NatsAccess((url,), str(credentials), "relay"), "relay_test_leases", ttl_s=LONGEST_WAIT_S)
        stranger = NatsBus(NatsAccess((url,), "", "stranger"), "relay_test_leases", ttl_s=LONGEST_WAIT_S)

        def is_connected() -> bool:
            # For as long as it takes, so that they do not expire before they are used.
            if not bus.is_connected:
                accounts.write_credentials(credentials, SUBJECTS, lasts_s=4)
            return bus.is_connected

        await bus.start()
        await stranger.start()
        try:
            await eventually(is_connected)
            await eventually(lambda: not bus.is_connected)
            accounts.write_credentials(credentials, SUBJECTS)
            await eventually(lambda: bus.is_connected)

            async def answer(question: bytes) -> bytes:
                return question * 400_000

            # All that relays do with it: leases, messages, and answers in parts.
            revision = await bus.acquire("lease.venue.1.0.ab", b"me")
            assert revision is not None
            assert await bus.acquire("lease.venue.1.0.ab", b"me too") is None
            assert await bus.renew("lease.venue.1.0.ab", b"me", revision) is not None
            other = NatsBus(NatsAccess((url,), str(credentials), "other"), "relay_test_leases", ttl_s=LONGEST_WAIT_S)
            await other.start()
            try:
                heard: list[bytes] = []
                bus.listen("mr.test.beat", heard.append)
                bus.answer("mr.test.call.me", answer)
                await eventually(lambda: other.is_connected)

                def is_heard() -> bool:
                    other.send("mr.test.beat", b"hello")
                    return bool(heard)

                await eventually(is_heard)
                assert await other.request("mr.test.call.me", b"what", LONGEST_WAIT_S) == b"what" * 400_000
            finally:
                await other.close()
            assert not stranger.is_connected
            with pytest.raises(BusError):
                await stranger.acquire("lease.venue.1.0.ab", b"stranger")
        finally:
            await bus.close()
            await stranger.close()
