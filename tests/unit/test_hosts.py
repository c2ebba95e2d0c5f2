"""The grammar of hosts and origins: what fits, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.hosts import Host, Origin, parse_host, parse_origin
from tests.integration.test_access import TRICKS


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("Relay.Example:80", "relay.example", 80),
        ("localhost", "localhost", None),
        ("localhost.", "localhost", None),
        ("my_box-1.local:8000", "my_box-1.local", 8000),
        ("1.example", "1.example", None),
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("[::1]:8000", "::1", 8000),
        ("[0:0:0:0:0:0:0:1]", "::1", None),
        ("[::ffff:10.0.0.1]", "::ffff:a00:1", None),
        ("xn--80ak6aa92e.example", "xn--80ak6aa92e.example", None),
    ],
)
def test_hosts(text: str, name: str, port: int | None) -> None:
    host = parse_host(text)
    assert host is not None
    assert (host.name, host.port) == (name, port)
    assert (host.address is not None) == (name[-1] == "1" and name != "my_box-1.local")


@pytest.mark.parametrize("text", [*TRICKS, "", ".", "a..b", "-a.example", "a-.example", "a" * 64, "a." * 127 + "a",
                                  "\u0661.example", "localhost:\u0661", "localhost\n", " localhost",
                                  "example.0x7f", "xn--.localhost-"])  # fmt: skip
def test_what_is_no_host(text: str) -> None:
    assert parse_host(text) is None


@given(st.text("ab1.:@[]%/-_ \\", max_size=12))
def test_a_host_is_made_of_what_a_host_may_have(text: str) -> None:
    host = parse_host(text)
    if host is not None:
        assert not set("@%/ \\") & set(text)
        assert host == Host(host.name, host.port, host.address)
        written = f"[{host.name}]" if ":" in host.name else host.name
        assert parse_host(written if host.port is None else f"{written}:{host.port}") == host


def test_origins_are_compared_with_their_ports() -> None:
    assert parse_origin("HTTPS://Charts.Example") == Origin("https", "charts.example", 443)
    assert parse_origin("http://charts.example:80") == parse_origin("http://charts.example")
    assert parse_origin("Capacitor://localhost") == Origin("capacitor", "localhost", 0)
    assert parse_origin("null") == Origin("null", "", 0)
    for text in ("Null", "", "http://", "http://a/", "-a://a", "a", "http://a@b", "http://a, http://a", "https:a"):
        assert parse_origin(text) is None, text
