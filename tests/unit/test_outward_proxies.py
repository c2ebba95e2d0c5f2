"""How the address of a proxy on the way out is read, and which one leads where."""

from base64 import b64decode

import pytest

from relay.core.outward_proxies import EXAMPLE, OutwardProxies, OutwardProxy, given_proxies, parse_proxy


@pytest.mark.parametrize(
    ("text", "shown", "login"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", ""),
        ("HTTP://Proxy.Example:3128/", "http://proxy.example:3128", ""),
        ("proxy.example:3128", "http://proxy.example:3128", ""),
        ("http://10.0.0.1", "http://10.0.0.1:80", ""),
        ("http://[fd00::1]:8080", "http://[fd00::1]:8080", ""),
        ("http://me:hush@proxy:1", "http://proxy:1", "me:hush"),
        ("me:hush@proxy:1", "http://proxy:1", "me:hush"),
        ("http://me@proxy:1", "http://proxy:1", "me:"),
        ("http://me:hush%40%2F%c3%a9@proxy:1", "http://proxy:1", "me:hush@/é"),
        ("http://me:hu@sh/hush@proxy:1", "http://proxy:1", "me:hu@sh/hush"),
        ("http://me:%ff@proxy:1", "http://proxy:1", "me:\udcff"),
    ],
)
def test_an_address_is_read_and_shown_without_its_login(text: str, shown: str, login: str) -> None:
    proxy = parse_proxy(text)
    assert (str(proxy), proxy.login.reveal()) == (shown, login)
    assert "hush" not in repr(proxy)
    scheme, _, said = proxy.authorization.partition(" ")
    assert b64decode(said) == login.encode("utf-8", "surrogateescape")
    assert scheme == ("Basic" if login else "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socks5://me:hush@proxy:1080", "is the address of a SOCKS proxy, which the relay cannot use"),
        ("SOCKS5H://proxy", "is the address of a SOCKS proxy"),
        ("https://me:hush@proxy:1", "begins with https://, and the relay speaks to proxies without TLS"),
        ("ftp://me:hush@proxy:1", "is not the address of a proxy"),
        ("http://me:hush@proxy:port", "is not the address of a proxy"),
        ("http://me:hush@", "is not the address of a proxy"),
        ("http://proxy:1/path", "is not the address of a proxy"),
        ("http://hush proxy:1", "is not the address of a proxy"),
        ("none", "is not the address of a proxy"),
        ("hush", "is not the address of a proxy"),
        ("proxy.example", "is not the address of a proxy"),
        ("http://proxy.example:0", "is not the address of a proxy"),
        ("", "is not the address of a proxy"),
    ],
)
def test_what_is_no_use_is_refused_with_an_example_and_not_repeated(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        parse_proxy(text)
    assert EXAMPLE in str(caught.value)
    assert "hush" not in str(caught.value)


PROXY, OTHER = parse_proxy("proxy:1"), parse_proxy("other:2")


def proxies(**environ: str) -> OutwardProxies:
    found = OutwardProxies()
    found.go_by(None, environ)
    return found


@pytest.mark.parametrize(
    ("scheme", "expected"), [("https", PROXY), ("wss", PROXY), ("http", OTHER), ("ws", OTHER), ("ftp", None)]
)
def test_the_environment_names_a_proxy_for_each_scheme(scheme: str, expected: OutwardProxy | None) -> None:
    assert proxies(HTTPS_PROXY="proxy:1", http_proxy="other:2").of(scheme, "venue.example", 443) == expected
    assert proxies().of(scheme, "venue.example", 443) is None


def test_lower_case_goes_before_upper_case_and_an_empty_one_is_none() -> None:
    assert given_proxies({"HTTPS_PROXY": "proxy:1", "https_proxy": "other:2"}) == {"https": ("https_proxy", "other:2")}
    assert given_proxies({"HTTPS_PROXY": "proxy:1", "https_proxy": " "}) == {"https": ("HTTPS_PROXY", "proxy:1")}
    assert given_proxies({"HTTPS_PROXY": "", "ALL_PROXY": "proxy:1"}) == {}


def test_the_setting_goes_before_the_environment_whose_exceptions_hold_for_it_too() -> None:
    found = OutwardProxies()
    found.go_by(OTHER, {"HTTPS_PROXY": "socks5://proxy", "NO_PROXY": "venue.example"})
    assert found.of("https", "another.example", 443) == OTHER
    assert found.of("https", "venue.example", 443) is None


def test_a_wrong_one_names_its_variable_and_changes_nothing() -> None:
    found = proxies(HTTPS_PROXY="proxy:1")
    with pytest.raises(ValueError, match=r"^HTTP_PROXY: the value is not the address") as caught:
        found.go_by(None, {"HTTP_PROXY": "htp://me:hush@proxy"})
    assert "hush" not in str(caught.value)
    assert found.of("https", "venue.example", 443) == PROXY


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LocalHost", "localhost.", "relay.localhost", "127.0.0.1", "127.8.8.8", "::1",
        "::ffff:127.0.0.1", "0.0.0.0", "::",
    ],
)  # fmt: skip
def test_this_machine_is_reached_without_a_proxy(host: str) -> None:
    assert OutwardProxies(PROXY).of("https", host, 443) is None


@pytest.mark.parametrize(
    ("without", "host", "is_direct"),
    [
        ("*", "venue.example", True),
        ("venue.example", "venue.example", True),
        ("VENUE.example", "api.venue.example", True),
        (".venue.example", "api.venue.example", True),
        ("*.venue.example", "api.venue.example", True),
        ("venue.example", "myvenue.example", False),
        ("venue.example:443", "venue.example", True),
        ("venue.example:8443", "venue.example", False),
        ("other.example, venue.example", "venue.example", True),
        ("other.example venue.example", "venue.example", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("0.0.1", "10.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "venue.example", False),
        ("fd00::/8,::2", "fd00::1", True),
        ("::2", "::2", True),
        ("10.0.0.0/99,[,http://x", "10.1.2.3", False),
    ],
)
def test_no_proxy_names_what_is_reached_without(without: str, host: str, is_direct: bool) -> None:
    found = proxies(https_proxy="proxy:1", no_proxy=without).of("https", host, 443)
    assert (found is None) is is_direct


def test_all_that_there_are_is_said_and_no_password() -> None:
    both = proxies(https_proxy="me:hush-hush@proxy:1", http_proxy="proxy:1")
    assert str(both) == "http://proxy:1"
    assert str(proxies(https_proxy="me:hush-hush@proxy:1")) == "http://proxy:1 for https"
    assert str(OutwardProxies()) == ""
    text = "me:hush-hush, hush%2Dhush and bWU6aHVzaC1odXNo"
    both.go_by(None, {})
    assert both.conceal(text) == "***, *** and ***"
    assert OutwardProxies().conceal(text) == text
