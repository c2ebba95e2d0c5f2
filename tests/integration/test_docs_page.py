"""The page of the contracts shows all of them, and a browser may load all that it refers to."""

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from importlib import resources

import pytest

from relay.core.errors import CloseCode
from relay.web.contract import docs_page as docs
from tests.conftest import StartRelay
from tests.support.contracts import live_contract, rest_contract
from tests.support.running_relay import Running


class Seen(HTMLParser):
    """What of a page is told by its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: Counter[str] = Counter()
        self.inline: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self._open = tag
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        self.ids[found.get("id") or ""] += 1
        if tag == "a":
            self.links.append(found["href"] or "")
        self.loads += [found[name] or "" for name in ("src",) if name in found]
        if tag == "link":
            self.loads.append(found["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)


async def test_docs_show_every_route_message_and_close_code(relay: Running) -> None:
    answer = await relay.get("/docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    text = answer.text
    assert all(f"<code>{path}</code>" in text for path in rest_contract()["paths"])
    assert all(f'id="message-{name}"' in text for name in live_contract()["components"]["messages"])
    assert all(f"<code>{int(code)}</code>" in text for code in CloseCode)
    assert f"<code>{relay.url.replace('http', 'ws', 1)}/api/v1/market-data/ws</code>" in text
    assert "0 to 5,000" in text
    assert ("default false" in text, "default False" in text) == (True, False)


@pytest.mark.parametrize("facades", [("binance", "udf"), ("udf",), ()])
async def test_docs_name_the_contracts_of_the_facades_that_are_served(
    relay_with: StartRelay, facades: tuple[str, ...]
) -> None:
    relay = await relay_with(facades=facades)
    text = (await relay.get("/docs")).text
    named = re.findall(r"<code>(/(?:openapi|asyncapi)/\w+\.json)</code>", text)
    assert named == [f"/{kind}/{name}.json" for name in facades for kind in ("openapi", "asyncapi")]
    assert [(await relay.get(path)).status for path in named] == [200] * len(named)


async def test_docs_have_the_example_as_it_is_tested(relay: Running) -> None:
    example = resources.files("relay.web") / "examples" / "lightweight-charts" / "main.js"
    text = unescape((await relay.get("/docs")).text)
    assert f"<pre><code>{example.read_text(encoding='utf-8')}</code></pre>" in text


async def test_docs_load_nothing_from_elsewhere_and_have_nothing_inline(relay: Running) -> None:
    answer = await relay.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    seen = Seen(answer.text)
    assert seen.inline == []
    assert len(set(seen.loads)) == 5
    for address in seen.loads:
        assert address.startswith("static/"), address
        assert (await relay.get(f"/{address}")).status == 200, address


async def test_links_of_the_docs_lead_somewhere(relay: Running) -> None:
    seen = Seen((await relay.get("/docs")).text)
    assert max(count for name, count in seen.ids.items() if name) == 1
    inside = {link[1:] for link in seen.links if link.startswith("#")}
    assert inside <= set(seen.ids)
    outside = sorted({link for link in seen.links if not link.startswith("#")})
    assert "api/v1/market-data/history?symbol=BTCUSDT&interval=1m" in outside
    # The answer of that one does not end.
    for link in [link for link in outside if "/sse?" not in link]:
        address = "/" + link.removeprefix("./")
        assert (await relay.get(address)).status == 200, address


async def test_docs_say_when_a_token_is_needed(relay_with: StartRelay, relay: Running) -> None:
    closed = await relay_with(tokens=["a-long-random-text-for-tests"])
    assert "Requests need a token" in (await closed.get("/docs")).text
    assert "Requests need a token" not in (await relay.get("/docs")).text


async def test_nothing_that_a_client_sends_gets_into_the_page_as_it_is(relay: Running) -> None:
    text = (await relay.get("/docs", headers={"Host": 'x"><script>alert(1)</script>'})).text
    assert "alert(1)" not in text


def test_text_is_escaped_and_backticks_are_code() -> None:
    contract = rest_contract() | {"info": {"title": "<b>", "version": "1", "description": "`a<b` & c"}}
    text = docs.page(contract, live_contract())
    assert "<h1>&lt;b&gt; 1</h1>" in text
    assert "<code>a&lt;b</code> &amp; c" in text
    assert not re.search(r"<b>", text)
