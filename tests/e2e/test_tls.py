"""TLS of a real `relay serve`: https and wss, certificates renewed while clients stay, files that do not fit."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization

from relay.cli import main
from relay.core.errors import ConfigError
from relay.server.tls import Tls
from tests.support.authority import Authority
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import serving

API = "/api/v1/market-data"


def encrypt(authority: Authority) -> None:
    """Put a passphrase on the key."""
    key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    authority.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hidden"),
        )
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("first")
    return made


def served_by(url: str, trust: ssl.SSLContext) -> tuple[bytes | None, str | None]:
    """Open a connection; return the certificate that the relay shows, and the version of TLS."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), LONGEST_WAIT_S) as plain,
        trust.wrap_socket(plain, server_hostname=host) as tls,
    ):
        return tls.getpeercert(binary_form=True), tls.version()


async def test_https_and_wss_with_a_certificate_renewed_under_open_connections(
    tmp_path: Path, authority: Authority
) -> None:
    files = ("--tls-cert", str(authority.cert), "--tls-key", str(authority.key))
    connector = aiohttp.TCPConnector(ssl=authority.trust)
    async with (
        serving(tmp_path, "--database", ":memory:", *files) as relay,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        assert relay.url.startswith("https://127.0.0.1:")
        client = await session.ws_connect(f"{relay.url}{API}/ws", headers={"Origin": relay.url})
        assert (await client.receive_json())["status"] == "connected"
        first, version = served_by(relay.url, authority.trust)
        assert version in ("TLSv1.2", "TLSv1.3")

        authority.issue("second")
        await relay.hang_up("was read again")
        second, _ = served_by(relay.url, authority.trust)
        assert second != first

        # A pair that does not fit: the old one stays, and nobody is sent away.
        kept = authority.key.read_bytes()
        authority.issue("third")
        authority.key.write_bytes(kept)
        assert "key values mismatch" in await relay.hang_up("cannot be used, so the old one stays")
        assert served_by(relay.url, authority.trust)[0] == second
        authority.cert.unlink()
        assert "No such file" in await relay.hang_up("cannot be used, so the old one stays")
        assert served_by(relay.url, authority.trust)[0] == second

        await client.send_json({"action": "subscribe", "symbol": "BTCUSDT", "interval": "1s"})
        while (await client.receive_json(timeout=LONGEST_WAIT_S))["type"] != "price_update":
            pass
        async with session.get(f"{relay.url}{API}/symbols") as answer:
            assert answer.status == 200
        await client.close()
        assert await relay.stop() == 0


async def test_old_versions_of_tls_and_plain_http_are_refused(tmp_path: Path, authority: Authority) -> None:
    files = ("--tls-cert", str(authority.cert), "--tls-key", str(authority.key))
    async with serving(tmp_path, "--database", ":memory:", *files) as relay, aiohttp.ClientSession() as session:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            served_by(relay.url, old)
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{relay.url.replace('https', 'http')}/healthz")
        assert served_by(relay.url, authority.trust)[0] is not None
        assert await relay.stop() == 0
    assert "Traceback" not in "\n".join(relay.err)


Spoil = Callable[[Authority], object]
SPOILT: list[tuple[Spoil, str]] = [
    (lambda one: one.cert.unlink(), "No such file"),
    (lambda one: one.key.write_text("this is a diary"), "no start line|not PEM|unsupported"),
    (lambda one: one.cert.write_text(""), "no start line|not PEM|no certificate"),
    (encrypt, "passphrase"),
]


@pytest.mark.parametrize(("spoil", "words"), SPOILT)
def test_files_that_cannot_be_used_are_named_at_start(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(authority)
    with pytest.raises(ConfigError, match=words):
        Tls("cert.pem", "key.pem")
    result = CliRunner().invoke(
        main,
        ["serve", "--sandbox", "--forex-always-open", "--port", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"],
    )
    assert result.exit_code == 2
    assert "cert.pem" in result.stderr
    assert result.stderr.count("\n") == 1
